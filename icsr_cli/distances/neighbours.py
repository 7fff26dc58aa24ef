"""The k nearest neighbours: exact, or by a rough search whose recall is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from icsr_cli.checks import as_numpy, check_count, in_kind
from icsr_cli.distances.features import Index, check_features, unit_rows
from icsr_cli.errors import InputError
from icsr_cli.types import ALONE, FloatArray, Neighbours, Team

if TYPE_CHECKING:
    from icsr_cli.distances.rough import Rough
    from icsr_cli.exact_search import Among

Metric = Literal["l2", "cosine"]

#: Multiplications of all pairs from which on sketches, and codes of 8 bits with loading torch, are worth it.
WORTH_SKETCHES, WORTH_CODES = 2**36, 2**38


@dataclass(frozen=True, kw_only=True)
class ApproximateNeighbours(Neighbours):
    """Neighbours from an approximate index. ``recall``: the share of the exact ones that it found."""

    recall: float


def knn(
    features: Any,
    k: int,
    *,
    metric: Metric = "l2",
    device: Any = None,
    approximate: Index | None = None,
    team: Team = ALONE,
) -> Neighbours:
    """Find the k nearest neighbours of every vector, itself included.

    Args:
        features: (n, d) numbers, numpy or torch; finite, no zero vector.
        k: neighbours per vector, 1 to n.
        metric: ``"l2"`` gives squared Euclidean distances (2 - 2 x·y between unit vectors),
            ``"cosine"`` gives 1 - x·y / (|x| |y|).
        device: where to compute; default: where the features are (numpy: the CPU).
        approximate: None searches all pairs. ``"int8"`` searches all pairs by codes of 8 bits on the CPU,
            and their candidates exactly; ``"hnsw"`` and ``"ivf"`` ask an index of faiss for candidates. The
            result then is an ``ApproximateNeighbours`` with ``recall``, measured on 1,000 vectors drawn at
            random.
        team: processes that search together, each with the same arguments; all get the whole result, that
            of one process. (With ``approximate`` the leader searches.)

    Returns:
        ``indices`` int64 (n, k) and ``distances`` float32 (n, k), nearest first, ties by index, in the
        kind the features came in. A vector is always among its own neighbours, at distance 0, however
        many copies of it there are. (Of more than 8 vectors that tie at the border any may be taken; squared
        distances that differ by less than 4e-6 of the longest squared vector, from the mean of all, tie.)

    Raises:
        InputError: what came is not as said above.
    """
    if approximate not in (None, *get_args(Index)):
        raise InputError(f"approximate must be None, 'hnsw', 'int8' or 'ivf', got {approximate!r}.")
    if metric not in ("l2", "cosine"):
        raise InputError(f"metric must be 'l2' or 'cosine', got {metric!r}.")
    vectors = check_features(features, device)
    k = check_count("k", k, 1)
    if k > len(vectors):
        raise InputError(f"k must be at most the number of features, got k = {k} for {len(vectors)} rows.")
    if metric == "cosine":
        vectors = unit_rows(vectors)
    recall = None
    if approximate is not None:
        from icsr_cli.distances.approximate import search

        own = search(as_numpy(vectors), k, approximate) if team.rank == 0 else None
        [searched] = team.join(own)[:1]
        assert searched is not None
        indices, distances, recall = searched
    elif isinstance(vectors, np.ndarray):
        from icsr_cli.exact_search import Among

        one_group = np.zeros(len(vectors), dtype=np.int64)
        [(indices, distances)] = search_pairs(vectors, [Among(k)], one_group, team)
    else:
        from icsr_cli.distances.neighbours_torch import search_device

        indices, distances = _whole(search_device(vectors, k, team.share(len(vectors))), team)
    cosine = metric == "cosine"
    if cosine:
        distances = distances / 2
    found = in_kind(indices, features), in_kind(distances, features), cosine
    return Neighbours(*found) if recall is None else ApproximateNeighbours(*found, recall=recall)


def search_pairs(x: FloatArray, wanted: Sequence[Among], groups: Any, team: Team) -> list[tuple[Any, Any]]:
    """Search all pairs on the CPU, as ``search_cpu`` does, by what stands for them where that is faster.

    It is for many vectors only: for fewer, making it takes longer than it saves.
    """
    from icsr_cli.distances.rough import search_roughly
    from icsr_cli.exact_search import search_cpu

    few = max(among.k for among in wanted) <= len(x) // 64
    if few and _products(x) >= WORTH_SKETCHES:
        found = search_roughly(x, _stand_ins(x), wanted, groups, team)
        if found is not None:
            return found
    return search_cpu(x, wanted, groups, team)


def _products(x: FloatArray) -> int:
    return len(x) ** 2 * int(x.shape[1])


def _stand_ins(x: FloatArray) -> Iterator[Rough]:
    """Give what may stand for x (n, d) in the search, the fastest first."""
    from icsr_cli.distances.sketch import sketches

    yield from sketches(x)
    if _products(x) >= WORTH_CODES:
        from icsr_cli.distances.codes import are_fast, encode

        if are_fast():
            centre = x.mean(axis=0)
            yield encode(len(x), x.shape[1], lambda block: x[block] - centre)


def _whole(own: tuple[Any, Any], team: Team) -> tuple[Any, Any]:
    """Join the rows that each process has searched on its device."""
    if team.size == 1:
        return own
    import torch

    parts = team.join(tuple(part.cpu() for part in own))
    indices, distances = (torch.cat(part).to(own[0].device) for part in zip(*parts, strict=True))
    return indices, distances
