"""The HTTP application and the Bento service around it."""
