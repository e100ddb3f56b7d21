"""Figures and tables from result tables alone."""
