"""Whole methods of others, to compare with: each decides by itself how blocks are cut and which ranks they keep."""
