"""Run foreign code in isolation and observe it."""
