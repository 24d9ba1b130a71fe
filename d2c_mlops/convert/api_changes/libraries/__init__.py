"""API changes, one module per library; modules of this package are discovered."""
