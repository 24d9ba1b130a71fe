"""Notebooks as source text: cells, magics, names, statements and edits."""
