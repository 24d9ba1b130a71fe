"""Predictions become decisions: applied inside guardrails, asked about otherwise, each moment on record."""
