"""Jobs, their slots, and the scheduler that runs them."""
