"""Estimators find the change that removing a component makes to the network's outputs; one file each."""
