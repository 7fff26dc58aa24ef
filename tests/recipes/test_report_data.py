"""What a report shows of retrieval, against the slow, obvious way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli import config
from icsr_cli.errors import DatasetError
from icsr_cli.models import build
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import Embedder, evaluate
from icsr_cli.recipes.report_data import choose_queries, map_embedding, retrieve
from icsr_cli.recipes.steps import Engine
from icsr_cli.types import Dataset


@pytest.fixture(scope="module")
def embedder(tiny: Dataset, tiny_root: Path) -> Embedder:
    chosen = config.load("tiny", family="synthetic", options={"image.height": 32, "image.width": 16})
    torch.manual_seed(0)
    network = build("resnet_small", weights=None)
    engine = Engine(torch.device("cpu"), "fp32")
    return Embedder(network, tiny, chosen.image, chosen.evaluation, tiny_root, engine, Progress())


def test_rankings_are_those_of_the_protocol(embedder: Embedder) -> None:
    found = retrieve(embedder, per_kind=3, generator=np.random.default_rng(0))
    query, gallery = embedder.dataset.splits["query"], embedder.dataset.splits["gallery"]
    features = {name: embedder.embed(embedder.pixels(name), name).numpy() for name in ("query", "gallery")}
    assert len({one.query for one in found.queries}) == 9
    for one in found.queries:
        person, camera = query.records[one.query].identity, query.records[one.query].camera
        candidates = [
            row for row, record in enumerate(gallery.records)
            if record.identity != -1 and (record.identity, record.camera) != (person, camera)
        ]  # fmt: skip
        distance = np.linalg.norm(features["gallery"] - features["query"][one.query], axis=1)
        expected = sorted(candidates, key=lambda row: distance[row])
        np.testing.assert_allclose(distance[one.answers], distance[expected[:10]], atol=1e-5)
        hits = [gallery.records[row].identity == person for row in expected]
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
        assert one.average_precision == pytest.approx(np.mean(precisions), abs=1e-4)
        assert one.first_match == hits.index(True) + 1
        assert one.right.tolist() == [gallery.records[row].identity == person for row in one.answers]
        np.testing.assert_array_equal(one.pixels[0], embedder.pixels("query")[one.query])
        np.testing.assert_array_equal(one.pixels[1:], embedder.pixels("gallery")[one.answers])
    assert found.ranking.mAP == pytest.approx(np.nanmean(found.ranking.average_precision))
    judged = evaluate(embedder)
    np.testing.assert_array_equal(judged.plain.average_precision, found.ranking.average_precision)


@given(
    st.lists(st.one_of(st.just(float("nan")), st.sampled_from([0.0, 0.5, 1.0])), max_size=20),
    st.integers(0, 6),
)
@settings(max_examples=100, deadline=None)
def test_queries_are_chosen_once_and_in_order(values: list[float], count: int) -> None:
    precision = np.array(values, dtype=np.float64)
    chosen = choose_queries(precision, np.arange(len(precision)), count, np.random.default_rng(0))
    rows = [row for _, row in chosen]
    judged = int(np.isfinite(precision).sum())
    assert len(rows) == len(set(rows)) == min(judged, 3 * count)
    assert all(np.isfinite(precision[row]) for row in rows)
    of = {
        kind: [precision[row] for name, row in chosen if name == kind] for kind in ("best", "worst", "random")
    }
    assert of["worst"] == sorted(precision[np.isfinite(precision)].tolist())[:count]
    assert of["best"] == sorted(of["best"], reverse=True)
    assert all(value <= min(of["best"]) for value in of["random"])
    assert all(value >= max(of["worst"]) for value in of["random"] + of["best"])


def test_queries_are_of_different_people_as_far_as_there_are() -> None:
    precision = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    people = np.array([1, 1, 1, 2, 2, 3, 3, 3])
    chosen = choose_queries(precision, people, 3, np.random.default_rng(0))
    assert [row for kind, row in chosen if kind == "worst"] == [7, 4, 2]
    assert [row for kind, row in chosen if kind == "best"] == [0, 3, 5]


def test_random_queries_follow_the_seed() -> None:
    precision = np.linspace(0, 1, 100)
    draws = [choose_queries(precision, np.arange(100), 5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_without_a_gallery_nothing_is_ranked(embedder: Embedder) -> None:
    alone = Dataset("tiny", embedder.dataset.root, {"train": embedder.dataset.train}, ("a", "b", "c"))
    own = replace(embedder, dataset=alone)
    with pytest.raises(DatasetError, match="no query and no gallery images"):
        retrieve(own, per_kind=1, generator=np.random.default_rng(0))


def test_the_map_is_a_sample_and_follows_the_seed(embedder: Embedder) -> None:
    first, again = (map_embedding(embedder, np.random.default_rng(4), 20) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.points.shape == (20, 2)
    assert np.isfinite(first.points).all()
    assert (np.diff(first.rows) > 0).all()
    assert first.rows.max() < len(embedder.dataset.train)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_allclose(first.points, again.points)
    assert map_embedding(embedder, np.random.default_rng(4), 5) is None
