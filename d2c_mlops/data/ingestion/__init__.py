"""From a location to a dataset: read, join, check, write, and take in what is new."""
