"""Training: the data readers, the loop with its checkpoints, and one recipe per network."""
