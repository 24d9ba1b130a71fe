"""The database that records runs, versions, promotions, predictions and decisions."""
