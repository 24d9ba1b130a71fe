"""Retraining of live models without a person: the reason, the training run, the gate, the release, each step on record."""
