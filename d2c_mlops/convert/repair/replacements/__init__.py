"""Replacements of removed APIs, one module per library; modules of this package are discovered."""
