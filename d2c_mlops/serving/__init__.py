"""Serve a version: one generic service for every model, packaged as a Bento."""
