"""What is known of the future: promotions, prices, opening days, holidays and other events."""
