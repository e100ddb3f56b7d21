"""What is done to a pruned network before it is used, in place; one file each, called with the network and a Context."""
