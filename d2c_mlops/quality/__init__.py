"""Data quality of datasets and sources: assess, pass, warn or refuse, put bad rows into quarantine, and keep the history."""
