"""workers/tools."""
