"""Rollouts of a challenger beside the champion: state, routing, guardrails and history."""
