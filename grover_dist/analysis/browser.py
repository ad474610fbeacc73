"""What the model sees as tracks for a genome browser: tokens, per-base information and surprise, and clusters of regions.

    tokens.bed             every token; the score is its surprise, 1000 = 20 bits
    information.bedGraph   bits a base that the context tells of a token: (log2 of the words - entropy of the prediction) / length
    surprise.bedGraph      bits a base of the true token where it is masked: -log2 of its probability / length
    regions.bed            windows coloured by cluster of their mean embedding
    hub/                   a UCSC track hub with the same as bigBed and bigWig, where pybigtools is there (extra `tracks`)

Every token is masked once: in round r of ROUNDS those whose number in the window is r modulo ROUNDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.bpe.vocabulary import FIRST_BASE_ID
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.encode_regions import parse_region
from grover_dist.model.device import for_prediction
from grover_dist.run_dir import write_atomically

CLS_ID, SEP_ID, MASK_ID = 2, 3, 4
ROUNDS = 8  # an eighth of the tokens is masked at a time, about as in training
CLUSTERS = 7
# Okabe and Ito's, as red,green,blue
_COLOURS = ("0,114,178", "213,94,0", "0,158,115", "204,121,167", "230,159,0", "86,180,233", "0,0,0")
_MOST_SCORE_BITS = 20.0


@dataclass(frozen=True)
class TokenTrack:
    """Tokens of one record in order: ids, start_bp, end_bp int64[n]; information, surprise float64[n], bits a base; and its windows:
    window_start_bp, window_end_bp int64[m], vectors float32[m, hidden].
    """

    record: str
    ids: np.ndarray
    start_bp: np.ndarray
    end_bp: np.ndarray
    information: np.ndarray
    surprise: np.ndarray
    window_start_bp: np.ndarray
    window_end_bp: np.ndarray
    vectors: np.ndarray


def track_region(
    model: BertForMaskedLM, corpus: Corpus, record: str, start_bp: int, end_bp: int, cycles: int, max_tokens: int
) -> TokenTrack:
    """Tokens that overlap the region; windows of at most `max_tokens` never cross the end of a contig."""
    tokens = corpus.tokens(record, start_bp, end_bp, cycles)
    ids = tokens.ids.astype(np.int64)
    breaks = np.flatnonzero(tokens.start_bp[1:] != tokens.end_bp[:-1]) + 1
    pieces = [
        (at, min(at + max_tokens, stop))
        for start, stop in zip([0, *breaks], [*breaks, len(ids)], strict=True)
        for at in range(int(start), int(stop), max_tokens)
    ]
    information, surprise = np.zeros(len(ids)), np.zeros(len(ids))
    vectors = np.zeros((len(pieces), model.config.hidden_size), np.float32)
    for number, (start, stop) in enumerate(pieces):
        bits, told, vectors[number] = _window(model, ids[start:stop])
        length = tokens.end_bp[start:stop] - tokens.start_bp[start:stop]
        surprise[start:stop], information[start:stop] = bits / length, told / length
    first, last = (np.array([pair[side] for pair in pieces], np.int64) for side in (0, 1))
    return TokenTrack(
        record, ids, tokens.start_bp, tokens.end_bp, information, surprise, tokens.start_bp[first], tokens.end_bp[last - 1], vectors
    )


@torch.inference_mode()
def _window(model: BertForMaskedLM, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surprise and information of each token in bits, and the mean vector of the unmasked window."""
    device = for_prediction(model)
    rounds = min(ROUNDS, len(ids))
    lines = np.tile(np.concatenate([[CLS_ID], ids, [SEP_ID]]), (rounds + 1, 1))
    place = np.arange(len(ids))
    lines[place % rounds, place + 1] = MASK_ID
    hidden = model.bert(torch.from_numpy(lines).to(device)).last_hidden_state
    scores = model.cls(hidden[place % rounds, place + 1]).float().cpu()[:, FIRST_BASE_ID:]
    log_chance = torch.log_softmax(scores, dim=-1).double().numpy() / np.log(2)
    entropy = -(np.exp2(log_chance) * log_chance).sum(axis=1)
    return -log_chance[place, ids - FIRST_BASE_ID], np.log2(scores.shape[1]) - entropy, hidden[-1, 1:-1].float().mean(dim=0).cpu().numpy()


def write_tracks(
    model: BertForMaskedLM,
    corpus: Corpus,
    cycles: int,
    folder: Path,
    *,
    regions: Sequence[str],
    max_tokens: int,
    genome: str,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Write the files of the module's docstring. regions: "RECORD" or "RECORD:START-END"; none: the whole genome. genome: the browser's
    name of the assembly. UserError for a region that is not there.
    """
    contigs = corpus.store.contigs
    longest_bp = int(corpus.vocabulary.lengths(cycles).max())
    wanted = _merged([parse_region(corpus, region) for region in regions or contigs.record_names], longest_bp)
    found = [track_region(model, corpus, *region, cycles, max_tokens) for region in wanted]
    found = [track for track in found if len(track.ids)]
    strings = corpus.vocabulary.strings(cycles)
    sizes = {name: length for name, length in zip(contigs.record_names, contigs.record_lengths_bp, strict=True)}
    values = {name: [line for track in found for line in _values(track, getattr(track, name))] for name in ("information", "surprise")}
    beds = {"tokens": [line for track in found for line in _token_lines(track, strings)], "regions": _region_lines(found, seed)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in beds.items():
        write_atomically(folder / f"{name}.bed", "".join(f"{r}\t{a}\t{b}\t{rest}\n" for r, a, b, rest in lines).encode())
    for name, lines in values.items():
        write_atomically(folder / f"{name}.bedGraph", "".join(f"{r}\t{a}\t{b}\t{value:.4f}\n" for r, a, b, value in lines).encode())
    say(f"tracks: {len(beds['tokens']):,} tokens and {len(beds['regions']):,} regions in {folder}")
    try:
        import pybigtools
    except ImportError:
        say(
            "tracks: no hub, since it needs pybigtools: pip install 'grover_dist[tracks]'; the BED and bedGraph files load as custom tracks"
        )
        return
    data = folder / "hub" / genome
    data.mkdir(parents=True, exist_ok=True)
    for name, lines in values.items():
        pybigtools.open(str(data / f"{name}.bw"), "w").write(sizes, iter(lines))
    for name, lines in beds.items():
        pybigtools.open(str(data / f"{name}.bb"), "w").write(sizes, iter(lines))
    _write_hub(folder / "hub", genome)
    say(f"tracks: hub at {folder / 'hub' / 'hub.txt'}; put the folder on a web server and give the browser its address")


def _merged(regions: Sequence[tuple[str, int, int]], near_bp: int) -> list[tuple[str, int, int]]:
    """Sorted, as browsers want it; regions so near that they could share a token become one."""
    found: list[tuple[str, int, int]] = []
    for record, start, end in sorted(regions):
        if found and found[-1][0] == record and start <= found[-1][2] + near_bp:
            found[-1] = (record, found[-1][1], max(end, found[-1][2]))
        else:
            found.append((record, start, end))
    return found


def _values(track: TokenTrack, values: np.ndarray) -> Iterator[tuple[str, int, int, float]]:
    return ((track.record, *line) for line in zip(track.start_bp.tolist(), track.end_bp.tolist(), values.tolist(), strict=True))


def _token_lines(track: TokenTrack, strings: list[str]) -> Iterator[tuple[str, int, int, str]]:
    bits = track.surprise * (track.end_bp - track.start_bp)
    scores = np.clip(1000 * bits / _MOST_SCORE_BITS, 0, 1000).astype(int)
    for start, end, token, score in zip(track.start_bp.tolist(), track.end_bp.tolist(), track.ids.tolist(), scores.tolist(), strict=True):
        yield track.record, start, end, f"{strings[token]}\t{score}\t+"


def _region_lines(found: Sequence[TokenTrack], seed: int) -> list[tuple[str, int, int, str]]:
    """BED 9: the name and the colour are the cluster."""
    if not found:
        return []
    vectors = np.concatenate([track.vectors for track in found])
    number = min(CLUSTERS, len(vectors))
    cluster = KMeans(number, n_init=4, random_state=seed).fit_predict(vectors) if number > 1 else np.zeros(len(vectors), int)
    order = np.argsort(-np.bincount(cluster, minlength=number), kind="stable")
    rank = np.empty(number, int)
    rank[order] = np.arange(number)
    places = [
        (track.record, *window)
        for track in found
        for window in zip(track.window_start_bp.tolist(), track.window_end_bp.tolist(), strict=True)
    ]
    return [
        (record, start, end, f"cluster{rank[kind] + 1}\t0\t.\t{start}\t{end}\t{_COLOURS[rank[kind]]}")
        for (record, start, end), kind in zip(places, cluster.tolist(), strict=True)
    ]


def _write_hub(folder: Path, genome: str) -> None:
    write_atomically(
        folder / "hub.txt",
        b"hub grover_dist\nshortLabel grover_dist\nlongLabel Tokens and predictions of a DNA language model\ngenomesFile genomes.txt\n"
        b"email nobody@example.org\n",
    )
    write_atomically(folder / "genomes.txt", f"genome {genome}\ntrackDb {genome}/trackDb.txt\n".encode())
    tracks = (
        ("tokens", "bb", "bigBed 6", "Tokens of the vocabulary; score: surprise where masked", "spectrum on\n"),
        ("information", "bw", "bigWig", "What the context tells of each token (bits a base)", "autoScale on\nvisibility full\n"),
        ("surprise", "bw", "bigWig", "Surprise of the true token where masked (bits a base)", "autoScale on\nvisibility full\n"),
        ("regions", "bb", "bigBed 9", "Windows by cluster of their embedding", "itemRgb on\n"),
    )
    text = "\n".join(
        f"track grover_{name}\nbigDataUrl {name}.{suffix}\nshortLabel {name}\nlongLabel {label}\ntype {kind}\n{more}"
        for name, suffix, kind, label, more in tracks
    )
    write_atomically(folder / genome / "trackDb.txt", text.encode())
