"""Attention over the KV of many rows at once: plans of one step, and how they are computed."""
