"""Champion and challenger: which records the challenger serves, how it compares, and the history."""
