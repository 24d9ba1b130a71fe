"""Predictions for a whole table, written to a file, a database table or a web hook."""
