"""Tasks from planted truth: the right bases, the right side of the split."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.errors import UserError
from grover_dist.finetune.planted import CTCF_WINDOW_BP, planted_task
from grover_dist.genome.split import split_blocks
from grover_dist.run_dir import Artifact

LETTERS = np.array(list("ACGTN"))


def write_truth(folder, **files):
    (folder / "truth").mkdir()
    for name, rows in files.items():
        lines = [f"7\t{start}\t{end}\tx\t0\t{strand}\n" for start, end, strand in rows]
        (folder / "truth" / f"{name}.bed").write_text("".join(lines))
    return Artifact(folder, {})


def test_promoters_lie_on_one_side_of_the_split_and_follow_their_strand(tmp_path, genome):
    rows = [(start, start + 40, "-" if start % 3 else "+") for start in range(0, 2_900, 45) if not 960 < start < 1_010]
    artifact = write_truth(tmp_path, promoters=rows[::2], non_promoters=rows[1::2])
    table = planted_task(genome.config, "promoter", artifact, genome)
    split = split_blocks(genome.contigs, genome.config.split, genome.config.seed)
    complement = str.maketrans("ACGTN", "TGCAN")
    expected = {}
    for index, (start, end, strand) in enumerate(rows):
        text = genome.letters[start:end]
        blocks = {start // 1_000, (end - 1) // 1_000}
        if len({bool(split.held_out[block]) for block in blocks}) == 1:
            expected[text if strand == "+" else text.translate(complement)[::-1]] = (index % 2 == 0, start // 1_000)
    for name, part in table.parts.items():
        for sequence, label, block in zip(part.sequences, part.labels, part.group, strict=True):
            positive, where = expected.pop("".join(LETTERS[sequence]))
            assert (table.classes[label] == "promoter") == positive and where == block
            assert split.held_out[block] == (name == "test")
    assert not expected
    assert not set(table.parts["train"].group) & set(table.parts["validation"].group)


def test_ctcf_sites_are_widened_and_those_at_the_edge_left_out(tmp_path, genome):
    bound = [(start, start + 14, "+") for start in (2, 300, 600, 1_300, 1_600, 2_300, 2_600, 2_990)]
    unbound = [(start, start + 14, "-") for start in (150, 450, 1_450, 1_750, 2_450)]
    table = planted_task(genome.config, "ctcf", write_truth(tmp_path, ctcf_bound=bound, ctcf_unbound=unbound), genome)
    assert all(len(sequence) == CTCF_WINDOW_BP for part in table.parts.values() for sequence in part.sequences)
    texts = {"".join(LETTERS[sequence]) for part in table.parts.values() for sequence in part.sequences}
    assert genome.letters[307 - 100 : 307 + 100] in texts and len(texts) == sum(len(part) for part in table.parts.values()) <= 11


def test_a_genome_without_truth_is_a_user_error(tmp_path, genome):
    with pytest.raises(UserError, match="no record of what was planted"):
        planted_task(genome.config, "promoter", Artifact(tmp_path, {}), genome)
