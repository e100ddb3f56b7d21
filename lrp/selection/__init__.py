"""Selections decide which components stay; one file each, called with blocks, scores and a sparsity, returning masks."""
