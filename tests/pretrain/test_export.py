import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from grover_dist.errors import UserError
from grover_dist.pretrain.export import export_model
from grover_dist.run_dir import RunDir, read_artifact
from tests.pretrain.small_run import CYCLES


@pytest.fixture(scope="module")
def exported(config, run, corpus, pretrained):
    said = []
    artifact = export_model(config, run, corpus, pretrained, say=said.append)
    assert "16 regions" in said[-1]
    return artifact


def test_export_is_what_a_user_loads(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported.path)
    model = AutoModelForMaskedLM.from_pretrained(exported.path)
    inputs = tokenizer("acgtNNacgt", return_tensors="pt")
    assert inputs["input_ids"][0].tolist().count(tokenizer.unk_token_id) == 2
    assert model(**inputs).logits.shape[-1] == CYCLES + 9 == len(tokenizer)
    assert not list(exported.path.rglob("*.bin")) and not list(exported.path.rglob("*.pt"))


def test_model_card_tells_the_figures(exported, pretrained):
    card = exported.file("README.md").read_text()
    for text in (
        "library_name: transformers",
        f"{pretrained.counts['bases']:,}",
        f"{pretrained.counts['bits_per_base']:.4f}",
        pretrained.digest[:16],
    ):
        assert text in card
    assert "/work" not in card and str(exported.path.parent) not in card


@pytest.mark.parametrize("fault", ["logits", "ids"])
def test_export_fails_where_it_is_not_the_trained_model(config, corpus, pretrained, tmp_path, monkeypatch, fault):
    """The copy is altered on its way, as a failing disk would."""
    copytree = shutil.copytree

    def damaged(source, target, **options):
        copytree(source, target, **options)
        if fault == "logits":
            weights = load_file(target / "model.safetensors")
            weights["cls.predictions.bias"] = weights["cls.predictions.bias"] + torch.linspace(0, 1e-3, CYCLES + 9)
            save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        else:
            tokenizer = json.loads((target / "tokenizer.json").read_text())
            tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:5]
            (target / "tokenizer.json").write_text(json.dumps(tokenizer))

    monkeypatch.setattr("grover_dist.pretrain.export.shutil.copytree", damaged)
    run = RunDir(tmp_path)
    with pytest.raises(UserError, match=f"{fault} differ"):
        export_model(config, run, corpus, read_artifact(pretrained.path), say=lambda line: None)
    assert not [path for path in tmp_path.glob("export/*") if path.is_dir()]
