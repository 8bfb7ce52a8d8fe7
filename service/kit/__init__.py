"""service/kit."""
