"""Blockings cut every layer matrix into blocks; one file each, called with the matrices, returning an exact partition."""
