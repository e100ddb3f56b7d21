"""Methods decide what becomes of every layer of a network at a sparsity; the paper's, combinations of its parts, and rivals."""
