"""Image data sets in memory, and their fixed division into train, validation and test."""
