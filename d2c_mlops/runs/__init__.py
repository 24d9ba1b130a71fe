"""Execute notebooks with papermill and record each run."""
