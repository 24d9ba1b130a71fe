"""Replay of a model's history under several retraining policies, with the code of training, monitor and gate."""
