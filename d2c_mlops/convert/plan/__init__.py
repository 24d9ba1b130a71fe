"""Plan a conversion: functions, steps, parameters and the model."""
