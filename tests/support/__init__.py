"""What several test modules share: models, services, notebooks, clocks."""
