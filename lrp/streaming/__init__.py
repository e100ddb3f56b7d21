"""Networks that are larger than memory: one block of layers at a time, from files to files."""
