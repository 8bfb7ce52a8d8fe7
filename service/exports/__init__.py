"""service/exports."""
