"""PathDiff (Bhosale, Wasi et al. 2025): text and/or mask -> histopathology image, learned from unpaired data."""
