"""One rank of `test_team.py`: neighbours, similarities and labels, computed together."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import torch

from icsr_cli.config.schema import GlobalSettings
from icsr_cli.distances import (
    camera_jaccard_similarity,
    codes,
    jaccard_similarity,
    knn,
    neighbours,
    rough,
    sketch,
)
from icsr_cli.labelling import evidence_of, label
from icsr_cli.recipes.distributed import join, leave


def main(out: Path) -> None:
    torch.set_num_threads(1)
    ranks, _ = join(["cpu"])
    drawn = np.random.default_rng(1)
    # More than two tiles of the search, some vectors twice and three times.
    n, people = 1300, 160
    ids, cameras = drawn.integers(0, people, n), drawn.integers(0, 4, n)
    x = drawn.standard_normal((people, 24))[ids] + 0.4 * drawn.standard_normal((n, 24))
    x[50:60], x[1200:1210] = x[:10], x[:10]
    features = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    found = {}
    for metric in ("l2", "cosine"):
        near = knn(features, 30, metric=metric, team=ranks)
        found |= {f"{metric} indices": near.indices, f"{metric} distances": near.distances}
    with (
        mock.patch.multiple(neighbours, WORTH_SKETCHES=0, WORTH_CODES=0),
        mock.patch.object(codes, "are_fast", return_value=True),
    ):
        near = knn(features, 10, team=ranks)
    found |= {"codes indices": near.indices, "codes distances": near.distances}
    with (
        mock.patch.object(neighbours, "WORTH_SKETCHES", 0),
        mock.patch.multiple(sketch, WIDTHS=(4, 12), WORTH=2, HOLD=0),
        mock.patch.object(rough, "MOST", 300),
    ):
        near = knn(features, 8, team=ranks)
    found |= {"sketch indices": near.indices, "sketch distances": near.distances}
    few = features[:400]
    near = knn(features, 12, approximate="ivf", team=ranks)
    found |= {"ivf": near.indices}
    ways = {
        "numba": jaccard_similarity(features, 20, 6, team=ranks),
        "k2 is 1": jaccard_similarity(features, 10, 1, team=ranks),
        "torch": jaccard_similarity(few, 10, 4, backend="torch", team=ranks),
        "aware": camera_jaccard_similarity(features, cameras, team=ranks),
    }
    for name, matrix in ways.items():
        found |= {f"{name} {part}": getattr(matrix, part) for part in ("indptr", "indices", "data")}
    own = GlobalSettings.model_validate({"refiners": ["discard"], "clusterer": {"method": "dbscan"}})
    facts = {"cameras": cameras, "local": ids, "previous": None}
    evidence = evidence_of(torch.from_numpy(features), own, **facts, team=ranks)
    ranks.together(evidence.compute_together)
    labels = ranks.from_leader(lambda: label(evidence, own))
    found |= {"labels": labels.labels, "clusters": labels.clusters, "cohesion": labels.columns["cohesion"]}
    np.savez(out / f"{ranks.size}-{ranks.rank}.npz", **found)
    leave()
