"""Commands for schedules, their exports, and what became of a slot."""

from d2c_mlops.cli.schedules import export, schedule, why

__all__ = ["export", "schedule", "why"]
