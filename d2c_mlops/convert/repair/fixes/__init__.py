"""How failures are mended, one module per kind; a module here adds its own menders, nothing else knows of it."""
