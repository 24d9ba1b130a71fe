"""What runs after go-live without a person: monitoring from the ledger, alerts and their delivery."""
