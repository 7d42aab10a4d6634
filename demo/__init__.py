"""The bundled demonstration: a tiny language model, its prefixes, and how they were made."""
