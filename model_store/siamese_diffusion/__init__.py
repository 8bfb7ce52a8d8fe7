"""Siamese-Diffusion (Qiu et al. 2025): mask -> medical image, its fidelity raised by a noise-consistency loss in
training."""
