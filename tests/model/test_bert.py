import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.bert.modeling_bert import BertForMaskedLM, BertModel

from grover_dist.config import ModelSettings
from grover_dist.model.bert import MaskedPredictor, bert_config, classifier, masked_lm, save_masked_lm
from grover_dist.model.size import flops_per_token, parameters

SMALL = ModelSettings(layers=2, heads=4, hidden=32, feed_forward=96, positions=40)
VOCABULARY = 49


@pytest.fixture(scope="module")
def config():
    return bert_config(SMALL, VOCABULARY)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_model_has_87_101_793_parameters_with_the_unused_pooler():
    paper = ModelSettings()
    assert parameters(paper, 609, pooler=True) == 87_101_793
    with torch.device("meta"):
        built = count(BertForMaskedLM(bert_config(paper, 609)))
        pooler = count(BertModel(bert_config(paper, 609)).pooler)
    assert built == parameters(paper, 609) and built + pooler == 87_101_793


@pytest.mark.parametrize("vocab_size", [10, 609])
def test_parameter_formula_counts_the_built_model(vocab_size):
    assert count(masked_lm(bert_config(SMALL, vocab_size), seed=1)) == parameters(SMALL, vocab_size)


@pytest.mark.parametrize("masked", [1, 7, 60])
def test_flops_formula_counts_what_torch_counts(config, masked):
    windows, length = 3, 20
    model = MaskedPredictor(masked_lm(config, seed=1))
    model.bert_for_masked_lm.set_attn_implementation("eager")  # the counter does not see into the fused kernel of the CPU
    ids = torch.randint(5, VOCABULARY, (windows, length))
    with FlopCounterMode(display=False) as counter:
        model(ids, None, torch.arange(masked)).sum().backward()
    expected = windows * length * flops_per_token(SMALL, VOCABULARY, length_tokens=length, masked_fraction=masked / (windows * length))
    # The embedding needs no gradient of its input, which the formula's factor of three includes.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


def test_masked_positions_get_the_logits_of_the_whole_head(config):
    model = masked_lm(config, seed=1).eval()
    ids = torch.randint(5, VOCABULARY, (3, 20))
    ids[1, 15:] = 0
    mask = (ids != 0).long()
    index = torch.tensor([0, 3, 21, 59])
    expected = model(ids, attention_mask=mask).logits.flatten(0, 1)[index]
    torch.testing.assert_close(MaskedPredictor(model).eval()(ids, mask, index), expected)


def test_padding_changes_nothing(config):
    model = MaskedPredictor(masked_lm(config, seed=1)).eval()
    ids = torch.randint(5, VOCABULARY, (1, 12))
    padded = torch.cat([ids, torch.zeros(1, 8, dtype=torch.long)], 1)
    index = torch.arange(12)
    torch.testing.assert_close(model(padded, (padded != 0).long(), index), model(ids, None, index), rtol=1e-4, atol=1e-5)


def test_weights_depend_on_the_seed_alone(config):
    torch.manual_seed(99)
    first = masked_lm(config, seed=3).state_dict()
    before = torch.random.get_rng_state()
    second, third = masked_lm(config, seed=3).state_dict(), masked_lm(config, seed=4).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_classifier_takes_the_trunk_and_draws_its_head_from_the_seed(config, tmp_path, capfd):
    model = MaskedPredictor(masked_lm(config, seed=1))
    save_masked_lm(config, MaskedPredictor.plain_weights(model.state_dict()), tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    first, second, third = (classifier(tmp_path, 16, seed=seed) for seed in (5, 5, 6))
    twin = classifier(config, 16, seed=5)
    trunk = model.bert_for_masked_lm.bert.state_dict()
    assert all(torch.equal(first.bert.state_dict()[name], value) for name, value in trunk.items())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, third.classifier.weight)
    assert first.num_labels == twin.num_labels == 16 and count(first) == count(twin)
    assert not torch.equal(twin.bert.embeddings.word_embeddings.weight, first.bert.embeddings.word_embeddings.weight)
    assert twin.config._attn_implementation == first.config._attn_implementation == "sdpa"
    assert capfd.readouterr() == ("", "")
