"""service/broker."""
