"""One training loop for every launcher: DeepSpeed engine, ranks, checkpoints, metrics."""
