"""What does not depend on events: draws, regimes, customers, products, prices, and the world they make."""
