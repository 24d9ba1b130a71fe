"""Static inference on notebooks: types, columns and roles of cells."""
