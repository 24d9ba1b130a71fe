"""The rules of `d2c check`; every Rule in a module of this package is discovered."""
