"""Engine `cpu`: TV-L1 by vector kernels that are compiled for the processor at hand."""
