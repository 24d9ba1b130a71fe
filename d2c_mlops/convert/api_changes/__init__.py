"""API changes of libraries, with the version that made each of them."""
