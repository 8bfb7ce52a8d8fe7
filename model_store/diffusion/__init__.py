"""model_store/diffusion."""
