"""Model versions, the promotion gate and the history of promotions."""
