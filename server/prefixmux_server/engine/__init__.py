"""The engine: requests in, tokens out, one ragged step at a time."""
