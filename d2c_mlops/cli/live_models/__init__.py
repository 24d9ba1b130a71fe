"""Commands that look at live models and retrain them."""

from d2c_mlops.cli.live_models import monitor, retrain

__all__ = ["monitor", "retrain"]
