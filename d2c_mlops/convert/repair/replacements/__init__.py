"""What to write instead, one module per library; a module here adds its own, nothing else knows of it."""
