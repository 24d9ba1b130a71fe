"""Compare the results of a conversion with those of its notebook."""
