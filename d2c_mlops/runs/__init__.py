"""Execute notebooks by papermill, on record."""
