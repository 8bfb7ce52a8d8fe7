"""Latent diffusion, on which Siamese-Diffusion and PathDiff build: autoencoder, text tokens, denoiser, control copy."""
