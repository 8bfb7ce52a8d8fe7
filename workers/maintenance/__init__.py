"""workers/maintenance."""
