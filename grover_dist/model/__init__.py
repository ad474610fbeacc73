"""BERT from settings, its heads, and what it costs."""
