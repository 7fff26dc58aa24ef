from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icsr_cli import exact_search
from icsr_cli.errors import InputError
from icsr_cli.metrics import rank_distances, rerank, reranking

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "labels_and_ranking.npz")
QUERY, GALLERY = GOLDEN["features"][GOLDEN["query"]], GOLDEN["features"][GOLDEN["gallery"]]


def slow_rerank(query, gallery, k1, k2, lambda_value):
    """The paper with whole matrices, Python sets and a loop over every image, in float64."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    squared = np.maximum(((features[:, None] - features) ** 2).sum(2), 0)
    furthest = squared.max(1, keepdims=True)
    original = (squared / np.where(furthest > 0, furthest, 1)) ** 2
    nearest = np.argsort(squared, axis=1, kind="stable").tolist()
    n_images = len(features)

    def reciprocal(image, k):
        return {other for other in nearest[image][: k + 1] if image in nearest[other][: k + 1]}

    encoding = np.zeros_like(original)
    for image in range(n_images):
        core = reciprocal(image, k1)
        expanded = set(core)
        for candidate in core:
            half = reciprocal(candidate, round(k1 / 2))
            if 3 * len(half & core) > 2 * len(half):
                expanded |= half
        for other in expanded:
            encoding[image, other] = np.exp(-original[image, other])
        encoding[image] /= encoding[image].sum()
    if k2 > 1:  # one is the image itself, also where a copy of it comes first
        encoding = np.array([encoding[nearest[image][:k2]].mean(0) for image in range(n_images)])
    shared = np.minimum(encoding[: len(query), None], encoding[None, len(query) :]).sum(2)
    return (1 - shared / (2 - shared)) * (1 - lambda_value) + original[
        : len(query), len(query) :
    ] * lambda_value


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_golden(kind):
    distances = rerank(kind(QUERY), kind(GALLERY), device="cpu")
    assert isinstance(distances, type(kind(QUERY)))
    assert distances.dtype in (np.float32, torch.float32)
    np.testing.assert_allclose(np.asarray(distances), GOLDEN["rerank_k20_6_03"], atol=1e-5)
    query, gallery = GOLDEN["query"], GOLDEN["gallery"]
    names = GOLDEN["pid"][query], GOLDEN["gallery_pid"], GOLDEN["cam"][query], GOLDEN["cam"][gallery]
    assert rank_distances(distances, *names).mAP == pytest.approx(float(GOLDEN["rerank_mAP"]), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_queries=st.integers(1, 10),
    n_gallery=st.integers(1, 30),
    k1=st.integers(1, 12),
    k2=st.integers(1, 8),
    lambda_value=st.floats(0, 1),
)
@example(seed=551, n_queries=8, n_gallery=28, k1=3, k2=1, lambda_value=0)
def test_equals_the_slow_way(seed, n_queries, n_gallery, k1, k2, lambda_value):
    # Whole numbers: distances are exact in float32, and ties abound.
    rng = np.random.default_rng(seed)
    features = 3 * rng.integers(0, 3, (4, 6))[rng.integers(0, 4, n_queries + n_gallery)]
    features = (features + rng.integers(-2, 3, features.shape)).astype(np.float32)
    query, gallery = features[:n_queries], features[n_queries:]
    found = rerank(query, gallery, k1, k2, lambda_value, device="cpu")
    k2 = min(k2, n_queries + n_gallery)
    np.testing.assert_allclose(found, slow_rerank(query, gallery, k1, k2, lambda_value), atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    whole = rerank(QUERY, GALLERY, device="cpu")
    monkeypatch.setattr(exact_search, "TILE", 70)
    np.testing.assert_allclose(rerank(QUERY, GALLERY, device="cpu"), whole, atol=1e-6)


def test_equal_images_are_at_distance_zero():
    same = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (4, 1))
    distances = rerank(same[:1], same[1:], k1=3, k2=2, device="cpu")
    np.testing.assert_allclose(distances, np.zeros((1, 3)), atol=1e-6)


def test_lambda_one_is_the_original_distance():
    distances = rerank(QUERY, GALLERY, lambda_value=1, device="cpu")
    features = np.concatenate([QUERY, GALLERY]).astype(np.float64)
    squared = 2 - 2 * QUERY.astype(np.float64) @ features.T
    expected = (squared / squared.max(1, keepdims=True))[:, len(QUERY) :] ** 2
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_the_gpus_way_gives_the_golden_distances(monkeypatch):
    """It computes on any device of torch; in blocks, the last of which is shorter."""
    monkeypatch.setattr(reranking, "BLOCK_NUMBERS", {"cpu": 1, "gpu": 37 * (len(QUERY) + len(GALLERY))})
    monkeypatch.setattr(
        reranking,
        "_nearest_cpu",
        lambda features, k, kept: reranking._nearest_gpu(torch.from_numpy(features), k, kept),
    )
    np.testing.assert_allclose(rerank(QUERY, GALLERY, device="cpu"), GOLDEN["rerank_k20_6_03"], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_golden():
    distances = rerank(torch.tensor(QUERY).cuda(), torch.tensor(GALLERY).cuda())
    assert distances.is_cuda
    np.testing.assert_allclose(distances.cpu(), GOLDEN["rerank_k20_6_03"], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": 0}, "k1 must be a whole number of at least 1, got 0"),
        ({"k2": -1}, "k2 must be a whole number"),
        ({"lambda_value": 1.5}, "lambda_value is 1.5"),
        ({"lambda_value": float("nan")}, "lambda_value is nan"),
        ({"query": np.zeros((2, 3))}, "query has 3 dimensions and gallery 2"),
        ({"gallery": np.zeros((0, 2))}, r"gallery has shape \(0, 2\)"),
        ({"gallery": np.full((2, 2), np.inf)}, "gallery holds numbers that are not finite"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        rerank(**({"query": np.eye(2), "gallery": np.eye(2)} | arguments))
