"""The words' vectors as a map in the plane and as clusters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.manifold import TSNE

from grover_dist.config import AnalysisSettings
from grover_dist.errors import UserError

_NEIGHBOURS = 15


def with_map(tokens: pa.Table, vectors: np.ndarray, known: np.ndarray, settings: AnalysisSettings, seed: int) -> pa.Table:
    """The token table with map_x, map_y and cluster (from 1, the largest first; average linkage of cosine distances), null where a word
    has no vector. vectors: [known words, hidden]; known: bool [rows of the table].
    """
    columns = {"cluster": clusters(vectors, settings.clusters).astype(float)}
    if settings.map != "none":
        columns |= dict(zip(("map_x", "map_y"), plane(vectors, settings.map, seed).T, strict=True))
    for name, values in columns.items():
        full = np.full(len(known), np.nan)
        full[known] = values
        column = pa.array(full, mask=~known)
        tokens = tokens.append_column(name, column.cast(pa.int32()) if name == "cluster" else column)
    return tokens


def plane(vectors: np.ndarray, method: str, seed: int) -> np.ndarray:
    """float64 [n, 2] by t-SNE (van der Maaten and Hinton 2008) or UMAP (McInnes et al. 2018), by cosine of the centred vectors."""
    centred = _centred(vectors)
    if method == "umap":
        try:
            import umap
        except ImportError:
            hint = "install it with `pip install 'grover_dist[analysis]'`, or set analysis.map=tsne"
            raise UserError("UMAP needs umap-learn", where="analysis.map", hint=hint) from None
        return umap.UMAP(n_neighbors=min(_NEIGHBOURS, len(vectors) - 1), metric="cosine", random_state=seed).fit_transform(centred)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(centred).astype(np.float64)


def clusters(vectors: np.ndarray, number: int) -> np.ndarray:
    """int64 [n], from 1, by falling size."""
    found = fcluster(linkage(_centred(vectors), "average", metric="cosine"), number, "maxclust")
    names, sizes = np.unique(found, return_counts=True)
    rank = {name: place for place, name in enumerate(names[np.argsort(-sizes, kind="stable")].tolist(), start=1)}
    return np.array([rank[name] for name in found.tolist()], np.int64)


def _centred(vectors: np.ndarray) -> np.ndarray:
    """Unit rows around the mean. A row on the mean itself has no direction and gets the first axis."""
    centred = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.maximum(norms, 1e-12)
    unit[norms[:, 0] < 1e-12, 0] = 1.0
    return unit
