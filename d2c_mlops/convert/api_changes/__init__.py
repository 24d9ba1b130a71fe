"""What libraries removed or changed, and since which version."""
