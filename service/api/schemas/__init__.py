"""service/api/schemas."""
