"""One run of the whole method, from its data to its table."""
