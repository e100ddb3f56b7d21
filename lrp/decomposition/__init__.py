"""Decompositions turn every block into components; one file each, called with a block and what was measured at its layer."""
