"""Convert notebooks for production: check, repair and run, plan, write, verify."""
