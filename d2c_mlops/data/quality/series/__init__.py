"""Find what is wrong in tables of series and periods."""
