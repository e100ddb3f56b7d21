"""Networks that lrp trains and prunes, and the loading of their weights."""
