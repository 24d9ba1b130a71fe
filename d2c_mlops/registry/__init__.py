"""Versions of models, the gate in front of production, and the record of who promoted what."""
