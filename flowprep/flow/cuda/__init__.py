"""TV-L1 on a GPU: many pairs at once, kernels compiled at run time."""
