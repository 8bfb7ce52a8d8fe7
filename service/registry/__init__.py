"""service/registry."""
