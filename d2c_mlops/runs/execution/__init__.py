"""Execute one notebook: worker, kernel, supervision, records and outputs."""
