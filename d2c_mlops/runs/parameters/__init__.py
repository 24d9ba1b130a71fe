"""Parameters of notebooks: read, typed and checked before a kernel starts."""
