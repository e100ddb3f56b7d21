"""Scorers say how important each component is; one file each."""
