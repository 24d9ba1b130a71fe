"""Report what in a notebook would break production, without running it."""
