"""Settings of a small genome and of a model that trains in seconds."""

from grover_dist.config import Config, config_from

CYCLES = 40


def small_config(folder) -> Config:
    return config_from(
        {
            "run": {"dir": str(folder)},
            "genome": {
                "synthetic": {
                    "length_bp": 120_000,
                    "contigs": 2,
                    "isochore_bp": 10_000,
                    "promoters": 10,
                    "ctcf_sites": 10,
                    "tandem_repeats": 3,
                }
            },
            "bpe": {"cycles": CYCLES},
            "split": {"block_bp": 5_000},
            "windows": {"max_tokens": 60},
            "model": {"layers": 1, "heads": 2, "hidden": 32, "feed_forward": 64, "positions": 64},
            "selection": {"input_bp": 50},
            "pretrain": {
                "candidates": [CYCLES],
                "budget_bases": 60_000,
                "batch_windows": 16,
                "micro_batch_windows": 4,
                "evaluate_windows": 30,
                "evaluations": 3,
                "checkpoint_every_steps": 4,
                "optimizer": {"learning_rate": 0.01},
            },
            "tracking": {"log_every_steps": 1},
        }
    )
