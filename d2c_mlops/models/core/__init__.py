"""What every model has: its class, contract, charter and conformance check."""
