"""Latent diffusion, what Siamese-Diffusion and PathDiff stand on: autoencoder, text tokens, denoiser and its control
copy."""
