"""Plots of what was found."""
