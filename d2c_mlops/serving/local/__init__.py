"""Run, check and load-test a Bento on this machine."""
