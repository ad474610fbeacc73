"""Next-k-mer prediction, its baselines, and the choice of the vocabulary by evidence."""
