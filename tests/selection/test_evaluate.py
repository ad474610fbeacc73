"""Evaluation of a candidate: no leak, paired arms, resumption, frozen trunk."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from grover_dist.bpe.encode import encode_codes, encode_many
from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.selection import evaluate
from grover_dist.selection.evaluate import evaluate_candidate
from grover_dist.selection.examples import tokens_of_codes, tokens_of_sequences
from grover_dist.selection.task import KmerTask
from grover_dist.training.ranks import Ranks


@pytest.fixture(scope="module")
def ranks():
    return Ranks.join()  # never left: DeepSpeed keeps the first process group of a process


def read(artifact):
    with pa.memory_map(str(artifact.file("predictions.arrow"))) as source:
        return pa.ipc.open_file(source).read_all()


def run_one(random_run, random_models, ranks, cycles=60, config=None, **more):
    return evaluate_candidate(
        config or random_run.config,
        random_run.run,
        random_models.learned,
        random_run.task,
        random_models.pretrained[cycles],
        cycles=cycles,
        ranks=ranks,
        say=lambda text: None,
        **more,
    )


def test_inputs_are_tokenized_in_isolation(random_run, random_models):
    vocabulary = Vocabulary.read(random_models.learned.path)
    inputs = KmerTask.open(random_run.task).held_out.inputs[:40]
    rows = tokens_of_codes(inputs, vocabulary, 60)
    for index, codes in enumerate(inputs):
        ids = rows.ids[index]
        expected = encode_codes(codes, vocabulary, 60)
        assert ids[0] == 2 and ids[len(expected) + 1] == 3 and (ids[len(expected) + 2 :] == 0).all()
        assert np.array_equal(ids[1 : len(expected) + 1], expected)
        assert rows.lengths[index] == len(expected) + 2
    batch = rows.with_labels(np.zeros(40)).batch(np.array([3, 0]))
    assert batch.inputs["attention_mask"].sum(axis=1).tolist() == rows.lengths[[3, 0]].tolist()
    assert batch.n_bases == 100


def test_long_sequences_become_windows_that_hold_every_token():
    sequences = [np.arange(10, 35, dtype=np.uint16), np.arange(5, dtype=np.uint16) + 10, np.array([], np.uint16)]
    rows = tokens_of_sequences(sequences, max_tokens=10)
    assert rows.first_row.tolist() == [0, 3, 4, 5]
    for index, ids in enumerate(sequences):
        pieces = [rows.ids[row, 1 : rows.lengths[row] - 1] for row in range(rows.first_row[index], rows.first_row[index + 1])]
        assert np.array_equal(np.concatenate(pieces), ids) and all(len(piece) <= 10 for piece in pieces)
    batch = rows.with_labels(np.array([0, 1, 1])).batch(np.array([1, 0]))
    assert batch.owner.tolist() == [0, 1, 1, 1] and batch.labels.tolist() == [1, 0]


def test_nothing_beats_chance_on_a_random_genome(random_run, random_models, ranks):
    artifact = run_one(random_run, random_models, ranks)
    table = read(artifact)
    n = random_run.config.selection.evaluate_positions
    assert table.num_rows == 2 * n
    for k in (1, 2):
        chance = 4.0**-k
        for arm in ("pretrained", "twin"):
            accuracy = artifact.counts["accuracy"][arm][str(k)]
            assert accuracy == pytest.approx(table.filter(pa.compute.equal(table["k"], k))[f"correct_{arm}"].to_numpy().mean())
            assert abs(accuracy - chance) < 4 * np.sqrt(chance * (1 - chance) / n)
    assert not list(artifact.path.glob("arms*"))


def test_tokens_cut_from_the_whole_sequence_would_leak(random_run, random_models):
    """Why the inputs are tokenized in isolation: on the same random genome the last token of a segmentation of the whole
    sequence that ends at the input's end tells which base cannot follow, since the pair would have been merged.
    """
    vocabulary = Vocabulary.read(random_models.learned.path)
    task = KmerTask.open(random_run.task)
    context = np.concatenate([task.train.codes, task.held_out.codes])
    leaked, truth, isolated = [], [], []
    lengths = vocabulary.lengths(60)
    for codes in context:
        ids = encode_codes(codes, vocabulary, 60)
        ends = np.cumsum(lengths[ids])
        place = np.searchsorted(ends, 50)
        if place < len(ends) and ends[place] == 50:  # the segmentation has a boundary at the input's end
            leaked.append(ids[place])
            truth.append(codes[50])
            isolated.append(encode_codes(codes[:50], vocabulary, 60)[-1])
    truth = np.array(truth)

    def accuracy(last_token):
        """The commonest next base after each last token, learned on one half and tested on the other."""
        last_token, half = np.array(last_token), len(truth) // 2
        counts = np.ones((69, 4))
        np.add.at(counts, (last_token[:half], truth[:half]), 1)
        return (counts.argmax(axis=1)[last_token[half:]] == truth[half:]).mean()

    everywhere = np.array([codes[50] for codes in context])
    tokens, counts = encode_many(context[:, :50], vocabulary, 60)
    last, half = tokens[np.arange(len(context)), counts - 1], len(context) // 2
    seen = np.ones((69, 4))
    np.add.at(seen, (last[:half], everywhere[:half]), 1)
    honest = (seen.argmax(axis=1)[last[half:]] == everywhere[half:]).mean()
    assert len(truth) > 500
    assert accuracy(leaked) > 0.25 + 5 * np.sqrt(0.1875 / (len(truth) / 2))
    assert abs(honest - 0.25) < 4 * np.sqrt(0.1875 / half)


def test_a_killed_evaluation_goes_on_with_the_next_arm(random_run, random_models, ranks, monkeypatch):
    """The arms that were finished are not trained again, and the result is that of an evaluation that was never killed."""
    head = random_run.config.selection.head.model_copy(update={"epochs": 0.3})
    whole = run_one(random_run, random_models, ranks, cycles=20, head=head)
    selection = random_run.config.selection.model_copy(update={"confidence": 0.9})
    config = random_run.config.model_copy(update={"selection": selection})
    trained, original = [], evaluate.fit

    def counting(objective, *arguments, **more):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(objective.name)
        return original(objective, *arguments, **more)

    # The same evaluation in another run folder, so that the complete artefact is not found.
    other = type(random_run.run)(random_run.run.path.parent / "killed")
    monkeypatch.setattr(evaluate, "fit", counting)
    killed = type(random_run)(**{**vars(random_run), "run": other, "config": config})
    with pytest.raises(KeyboardInterrupt):
        run_one(killed, random_models, ranks, cycles=20, head=head)
    assert len(list(other.path.glob("kmer/.c20-*/arms/*.arrow"))) == 3
    monkeypatch.setattr(
        evaluate, "fit", lambda objective, *rest, **more: trained.append(objective.name) or original(objective, *rest, **more)
    )
    resumed = run_one(killed, random_models, ranks, cycles=20, head=head)
    assert trained == ["c20 k=1 pretrained", "c20 k=1 twin", "c20 k=2 pretrained", "c20 k=2 twin"]
    assert read(resumed).equals(read(whole))
    assert len((other.logs / "kmer-c20.jsonl").read_text().splitlines()) == 4


def test_frozen_trunk_computes_features_once(random_run, random_models, ranks, monkeypatch):
    passes = []
    original = evaluate.trunk_features
    monkeypatch.setattr(evaluate, "trunk_features", lambda *arguments: passes.append(1) or original(*arguments))
    head = random_run.config.selection.head.model_copy(update={"freeze_trunk": True, "seeds": 2, "epochs": 0.2})
    artifact = run_one(random_run, random_models, ranks, cycles=20, head=head)
    assert len(passes) == 2 * (1 + 2)  # training and held-out inputs, of one pretrained trunk and of a twin for each seed
    assert len(artifact.counts["accuracy_by_seed"]["twin"]["2"]) == 2
    assert json.dumps(artifact.counts)


def test_a_larger_candidate_than_was_learned_is_refused(random_run, random_models, ranks):
    from grover_dist.errors import UserError

    with pytest.raises(UserError, match="fewer cycles"):
        evaluate_candidate(
            random_run.config, random_run.run, random_models.learned, random_run.task, random_models.pretrained[60],
            cycles=99, ranks=ranks, say=lambda text: None,
        )  # fmt: skip


def test_the_pretrained_arm_holds_the_weights_that_transformers_loads(random_run, random_models):
    from grover_dist.model.bert import bert_config, classifier

    folder = random_models.pretrained[20].file("model")
    model = classifier(bert_config(random_run.config.model, 29), 16, seed=5)
    twin = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate.set_trunk(model, evaluate.trunk_weights(folder))
    loaded = classifier(folder, 16, seed=5).state_dict()
    for name, value in model.state_dict().items():
        new = name.startswith(("classifier.", "bert.pooler."))
        assert value.equal(twin[name] if new else loaded[name]), name
    assert not model.state_dict()["bert.embeddings.word_embeddings.weight"].equal(twin["bert.embeddings.word_embeddings.weight"])
