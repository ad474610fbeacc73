"""Packing never changes what a window gives."""

import pytest
import torch

from grover_dist.config import ModelSettings
from grover_dist.model import packing
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.packing import WindowEdges

VOCABULARY, LENGTHS = 49, [20, 20, 20, 13, 7, 7, 3]


@pytest.fixture(scope="module")
def model():
    settings = ModelSettings(layers=2, heads=4, hidden=32, feed_forward=96, positions=40)
    model = MaskedPredictor(masked_lm(bert_config(settings, VOCABULARY), seed=1)).eval()
    with torch.no_grad():  # fresh weights attend to everything alike; larger ones choose
        for name, weights in model.named_parameters():
            if "attention.self" in name and weights.ndim == 2:
                weights.mul_(15)
    return model


@pytest.fixture(scope="module")
def windows():
    torch.manual_seed(3)
    return [torch.randint(5, VOCABULARY, (length,)) for length in LENGTHS]


def one_by_one(model, windows):
    return torch.cat([model(ids[None], None, torch.arange(len(ids))) for ids in windows])


def padded(model, windows):
    ids = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor(LENGTHS)[:, None]
    return model(ids, mask.long(), mask.flatten().nonzero()[:, 0])


def packed(model, windows):
    return model(torch.cat(windows)[None], None, torch.arange(sum(LENGTHS)), WindowEdges(LENGTHS))


def gradients(model, logits):
    model.zero_grad()
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("attend", ["_attend_runs", "_attend_jagged"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_packed_windows_have_the_logits_and_gradients_of_windows_by_themselves(model, windows, monkeypatch, attend):
    """Both ways: that of the CPU, and that of GPUs, whose jagged tensors the CPU knows too."""
    monkeypatch.setattr(packing, "_attend_runs", getattr(packing, attend))
    alone, together = one_by_one(model, windows), packed(model, windows)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    expected, found = gradients(model, alone), gradients(model, together)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_padding_and_packing_agree(model, windows):
    torch.testing.assert_close(padded(model, windows), packed(model, windows), rtol=1e-4, atol=1e-5)


def test_a_window_does_not_see_its_neighbours(model, windows):
    """Its logits stay when every other token changes, and would not stay if one window saw another."""
    ids, edges = torch.cat(windows)[None], WindowEdges(LENGTHS)
    start, stop = edges.offsets[3:5].tolist()
    others = (ids + 1 - 5) % (VOCABULARY - 5) + 5
    others[:, start:stop] = ids[:, start:stop]
    here = torch.arange(start, stop)
    torch.testing.assert_close(model(others, None, here, edges), model(ids, None, here, edges))
    joined = WindowEdges([sum(LENGTHS[:3]), *LENGTHS[3:]])
    joined.positions = edges.positions
    assert not torch.allclose(model(ids, None, torch.arange(20), joined), model(ids, None, torch.arange(20), edges), atol=1e-3)


def test_edges():
    edges = WindowEdges([3, 3, 2])
    assert edges.offsets.tolist() == [0, 3, 6, 8]
    assert edges.positions.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]]
    assert list(edges.runs()) == [(2, 3), (1, 2)]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_of_attention_is_drawn_and_scaled(dropout):
    """In the mean over many draws the output is that without dropout."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 9, 8) for _ in range(3))
    edges = WindowEdges([5, 4])
    plain, _ = packing.packed_attention(None, query, key, value, None, windows=edges)
    drawn = torch.stack([packing.packed_attention(None, query, key, value, None, dropout=dropout, windows=edges)[0] for _ in range(2_000)])
    assert (drawn.std(0).max() > 0.1) == (dropout > 0)
    torch.testing.assert_close(drawn.mean(0), plain, rtol=0, atol=0.15 if dropout else 1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_jagged_attention_on_a_gpu_equals_runs_on_the_cpu(dtype):
    torch.manual_seed(0)
    lengths = [512, 512, 300, 77, 22]
    query, key, value = (torch.randn(1, 12, sum(lengths), 64) for _ in range(3))
    expected, _ = packing.packed_attention(None, query, key, value, None, windows=WindowEdges(lengths))
    moved = [tensor.to("cuda", dtype) for tensor in (query, key, value)]
    found, _ = packing.packed_attention(None, *moved, None, windows=WindowEdges(lengths, "cuda"))
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 2e-2)
