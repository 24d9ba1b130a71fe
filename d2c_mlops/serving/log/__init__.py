"""The prediction log: its files, and their collection into the ledger."""
