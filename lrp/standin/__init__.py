"""Modules that are Linear layers or convolutions in another dress, and what stands in for them: a file for each kind."""
