"""How wide intervals must be, and what one training keeps for the next."""
