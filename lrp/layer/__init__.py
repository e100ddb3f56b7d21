"""Compressed layers, and how they take the places of dense ones."""
