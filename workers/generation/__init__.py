"""workers/generation."""
