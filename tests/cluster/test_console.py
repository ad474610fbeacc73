from __future__ import annotations

import io
import json

from rich.console import Console

from grover_dist.cluster.console import following
from grover_dist.run_dir import RunDir


def write(run, name, **state):
    with open(run.logs / name, "a") as handle:
        handle.write(json.dumps(state) + "\n")


def watched(tmp_path, *, terminal, steps=(10,)):
    """What `say` is given, and what the console has drawn at the end, when a candidate has come to these of 425 steps."""
    run, heard, drawn = RunDir(tmp_path), [], io.StringIO()
    with following(run, heard.append, console=Console(file=drawn, force_terminal=terminal, width=80)) as catch_up:
        for step in steps:
            write(run, "pretrain-c75.jsonl", step=step, steps=425, loss=4.25, tokens_per_second=18_000.0)
            catch_up()
        (run.logs / "c75.log").write_text("c75 says this\n")
    return heard, drawn.getvalue().rsplit("\x1b[2K", 1)[-1]


def test_a_terminal_has_a_bar_for_each_candidate_and_the_words_beside_it(tmp_path):
    heard, drawn = watched(tmp_path, terminal=True)
    assert "pretrain-c75" in drawn and "10/425 loss 4.250 18,000 tokens/s" in drawn
    assert heard == ["[c75] c75 says this"]


def test_a_bar_goes_when_its_work_is_done(tmp_path):
    _, drawn = watched(tmp_path, terminal=True, steps=(10, 425))
    assert "pretrain-c75" not in drawn


def test_elsewhere_progress_is_a_line_now_and_then(tmp_path):
    heard, drawn = watched(tmp_path, terminal=False, steps=(10, 20))
    assert heard[0] == "[pretrain-c75] step 10 of 425, loss 4.2500 nats a token, 18,000 tokens/s"
    assert heard[1:] == ["[c75] c75 says this"] and drawn == ""
