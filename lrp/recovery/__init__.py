"""What is done to a pruned network before it is used; one file each, called with the network and calibration images."""
