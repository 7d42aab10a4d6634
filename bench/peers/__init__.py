"""The systems that are compared: each does the whole workload in its own way."""
