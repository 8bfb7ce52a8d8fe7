"""model_store/masks."""
