"""Labelled tasks: tables, leak checks, baselines, fine-tuning and its metrics."""
