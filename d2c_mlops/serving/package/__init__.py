"""Package a version as a Bento and build its container image."""
