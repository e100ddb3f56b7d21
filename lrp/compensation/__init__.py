"""Refitting what is kept, in closed form, to what the dense layers gave; one file each. No gradient steps and no labels."""
