"""The HTTP API. It reads cards and the object store, sends chunks by task name, and never loads a network."""
