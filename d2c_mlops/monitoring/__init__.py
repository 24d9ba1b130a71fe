"""Monitoring of live models on frames and dataclasses: drift, performance, alerts; it knows no database."""
