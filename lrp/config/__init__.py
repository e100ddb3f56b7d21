"""The configuration: its schema, its files, and the parts that are made from it."""
