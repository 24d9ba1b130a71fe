"""Report what in a notebook would break production; nothing is run."""
