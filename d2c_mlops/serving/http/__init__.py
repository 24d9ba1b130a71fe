"""HTTP: messages, the uvicorn protocol, API keys, idempotency, metrics, traces and logs."""
