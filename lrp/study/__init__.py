"""Experiments that train networks: one class each, a table of cells each, run by ``lrp.study.job``."""
