"""The tables of run folders."""
