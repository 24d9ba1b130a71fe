"""What libraries took away or changed, one module per library; a module here adds its own, nothing else knows of it."""
