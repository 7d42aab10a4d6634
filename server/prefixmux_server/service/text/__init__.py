"""Between text and tokens: tokenizers, templates, stop strings."""
