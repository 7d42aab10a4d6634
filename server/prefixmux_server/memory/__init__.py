"""KV memory: what a row sees, where it lies, and which prefixes are where."""
