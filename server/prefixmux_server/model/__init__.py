"""The resident model: unchanged Hugging Face classes, bound to our attention."""
