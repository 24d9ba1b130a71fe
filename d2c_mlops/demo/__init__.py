"""The whole way on real data, in one command."""
