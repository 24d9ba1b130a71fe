"""Parts of the first process of a container: limits of commands, and the state between two of them."""
