from __future__ import annotations

from pathlib import Path

import pytest

from grover_dist.config import Config, config_from, load_config, settings_hash
from grover_dist.errors import UserError, nearest

REPOSITORY = Path(__file__).resolve().parent.parent
MINIMAL = {"genome": {"fasta": "genome.fa"}}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid_and_survives_a_round_trip(path, tmp_path):
    config = load_config(path)
    written = tmp_path / "again.yaml"
    written.write_text(config.to_yaml())
    assert load_config(written) == config


def test_paper_config_holds_the_numbers_of_the_paper():
    config = load_config(REPOSITORY / "configs" / "human-hg19.yaml")
    assert (config.model.layers, config.model.heads, config.model.hidden, config.model.feed_forward) == (12, 12, 768, 3072)
    assert (config.windows.max_tokens, config.windows.min_tokens, config.windows.full_probability) == (510, 20, 0.5)
    assert (config.pretrain.batch_windows, config.pretrain.mask.fraction, config.pretrain.optimizer.learning_rate) == (64, 0.022, 4e-4)
    assert config.selection.ks == (2, 3, 4, 5, 6) and config.selection.head.optimizer.learning_rate == 1e-6
    assert len(config.pretrain.candidates) == 20
    assert (min(config.pretrain.candidates), max(config.pretrain.candidates)) == (100, 5_000) and 600 in config.pretrain.candidates


def test_all_unknown_keys_are_named_at_once_with_the_nearest():
    with pytest.raises(UserError) as caught:
        config_from(
            {**MINIMAL, "bpe": {"cycle": 3}, "pretrain": {"mask": {"fractoin": 0.1}}, "finetune": {"tasks": [{"name": "a", "tests": "x"}]}}
        )
    message = str(caught.value)
    for expected in ("3 faults", "'bpe.cycle'", "'cycles'", "'pretrain.mask.fractoin'", "'fraction'", "'finetune.tasks.0.tests'", "'test'"):
        assert expected in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"genome": {}}, "either genome.fasta or genome.synthetic"),
        ({**MINIMAL, "bpe": {"cycles": 65_001}}, "bpe.cycles"),
        ({**MINIMAL, "bpe": {"cycles": 100}}, "above bpe.cycles 100"),
        ({**MINIMAL, "model": {"heads": 5}}, "not a multiple of heads"),
        ({**MINIMAL, "windows": {"max_tokens": 511}}, "exceeds model.positions 512"),
        ({**MINIMAL, "finetune": {"tasks": [{"name": "p", "planted": "promoter"}]}}, "need genome.synthetic"),
    ],
)
def test_inconsistent_settings_are_refused_in_words(data, words):
    with pytest.raises(UserError, match=words):
        config_from(data)


def test_extends_and_overrides_merge_from_base_to_command_line(tmp_path):
    (tmp_path / "base.yaml").write_text("genome: {fasta: a.fa}\nbpe: {cycles: 2000}\nseed: 3\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nseed: 4\n")
    config = load_config(tmp_path / "child.yaml", ["bpe.cycles=1500", "pretrain.optimizer.learning_rate=2e-4", "genome.fasta=[b.fa, c.fa]"])
    assert (config.seed, config.bpe.cycles, config.pretrain.optimizer.learning_rate) == (4, 1500, 2e-4)
    assert [path.name for path in config.genome.fasta] == ["b.fa", "c.fa"] and all(path.is_absolute() for path in config.genome.fasta)


def test_circular_extends_bad_yaml_missing_file_and_bad_override(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(UserError, match="circle"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "broken.yaml").write_text("genome: [\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(tmp_path / "broken.yaml")
    with pytest.raises(UserError, match=r"no such settings file.*a\.yaml"):
        load_config(tmp_path / "aa.yaml")
    with pytest.raises(UserError, match=r"key\.sub=value"):
        load_config(REPOSITORY / "configs" / "demo.yaml", ["seed"])


def test_settings_hash_sees_values_and_not_their_order():
    config = config_from(MINIMAL)
    assert settings_hash(config.bpe) == settings_hash(Config.model_validate(config.model_dump()).bpe)
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_nearest_names():
    assert nearest("chr2", ["chr1", "chr22", "chrX", "scaffold"]).startswith("'chr22'") or "'chr1'" in nearest("chr2", ["chr1", "chr22"])
    assert nearest("zzz", [f"contig{i}" for i in range(50)]) == "nothing similar"
