"""Super-resolution of CoSimGen's pairs (section 3.6): a sub-pixel convolution network x2, applied twice."""
