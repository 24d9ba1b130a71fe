"""From the records of a request to predictions, by the model's contract."""
