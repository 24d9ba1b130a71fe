"""What models of converted notebooks need when they run."""
