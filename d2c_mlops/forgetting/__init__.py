"""Find a customer wherever the store keeps people, and erase or pseudonymise the customer there."""
