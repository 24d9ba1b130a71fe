"""Secrets by reference, and their removal from what runs print."""
