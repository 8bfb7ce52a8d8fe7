"""Siamese-Diffusion (Qiu et al. 2025): mask -> medical image, trained with a noise-consistency loss for fidelity."""
