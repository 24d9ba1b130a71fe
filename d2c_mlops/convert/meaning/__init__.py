"""What expressions of a notebook stand for: types, columns, roles of cells."""
