"""workers/runtime."""
