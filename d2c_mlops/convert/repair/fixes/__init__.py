"""Fixes of failures, one module per kind; every Fix in a module of this package is discovered."""
