"""Second moments of what layers read, give and cause, gathered in one pass over the calibration images."""
