"""grover_dist: train DNA language models whose vocabulary is chosen by evidence."""

__version__ = "0.1.0"
