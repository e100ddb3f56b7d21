"""Searches set options of a method by what the compressed network gives, without labels; one file each."""
