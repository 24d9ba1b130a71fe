"""Repair a notebook until it runs on the installed libraries."""
