"""Decisions made from predictions: applied automatically within limits, else approved by people; every step is recorded."""
