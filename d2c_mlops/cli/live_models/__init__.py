"""Commands that look at live models, retrain them, and replay when they should have been retrained."""

from d2c_mlops.cli.live_models import monitor, retrain

__all__ = ["monitor", "retrain"]
