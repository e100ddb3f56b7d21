"""How a network is looked at and run: which layers it has, its graph, and the inputs of one layer after another."""
