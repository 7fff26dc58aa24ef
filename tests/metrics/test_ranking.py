from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.errors import InputError
from icsr_cli.metrics import match_ranks as match_ranks_module
from icsr_cli.metrics import rank, rank_by_camera, rank_distances, rank_distances_by_camera
from icsr_cli.metrics import ranking as ranking_module
from icsr_cli.metrics.match_ranks import _match_ranks_torch, match_ranks

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "labels_and_ranking.npz")


def golden_names():
    query, gallery = GOLDEN["query"], GOLDEN["gallery"]
    return GOLDEN["pid"][query], GOLDEN["gallery_pid"], GOLDEN["cam"][query], GOLDEN["cam"][gallery]


def golden_features():
    return GOLDEN["features"][GOLDEN["query"]], GOLDEN["features"][GOLDEN["gallery"]]


def slow_ranking(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank):
    """The protocol word for word, one query and one gallery image after the other."""
    precisions, penalties, firsts = [], [], []
    for query, row in enumerate(distances.tolist()):
        hits, place, hit_ranks = 0, 0, []
        for image in sorted(range(len(row)), key=lambda image: (row[image], image)):
            same = gallery_ids[image] == query_ids[query] and query_ids[query] != -1
            if gallery_ids[image] == -1 or (same and gallery_cameras[image] == query_cameras[query]):
                continue
            place += 1
            if same:
                hits += 1
                hit_ranks.append((hits, place))
        if hit_ranks:
            precisions.append(sum(hit / at for hit, at in hit_ranks) / len(hit_ranks))
            penalties.append(len(hit_ranks) / hit_ranks[-1][1])
            firsts.append(hit_ranks[0][1])
        else:
            precisions.append(float("nan"))
    if not firsts:
        return None
    cmc = [sum(first <= k for first in firsts) / len(firsts) for k in range(1, max_rank + 1)]
    return np.nanmean(precisions), cmc, np.mean(penalties), len(firsts), precisions


@st.composite
def tasks(draw):
    """Few distances, identities and cameras: ties, junk, distractors and queries without a match abound."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_queries, n_gallery = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    levels, identities, cameras = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    distances = rng.integers(0, levels, (n_queries, n_gallery)).astype(np.float32)
    return (
        distances,
        rng.integers(-1, identities, n_queries),
        rng.integers(-1, identities + 2, n_gallery),
        rng.integers(0, cameras, n_queries),
        rng.integers(0, cameras, n_gallery),
    )


def check_against_slow(task, result_of):
    max_rank = 7
    expected = slow_ranking(*task, max_rank)
    if expected is None:
        with pytest.raises(InputError, match="has a match"):
            result_of(*task, max_rank=max_rank)
        return
    result = result_of(*task, max_rank=max_rank)
    mean, cmc, penalty, n_used, precisions = expected
    assert result.mAP == pytest.approx(mean, abs=1e-12)
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-12)
    assert result.mINP == pytest.approx(penalty, abs=1e-12)
    assert (result.n_queries, result.n_left_out) == (n_used, len(task[1]) - n_used)
    np.testing.assert_allclose(result.average_precision, precisions, atol=1e-12)
    np.testing.assert_array_equal(result.first_match == 0, np.isnan(precisions))


@settings(max_examples=50, deadline=None)
@given(tasks())
def test_equals_the_slow_ranking(task):
    check_against_slow(task, rank_distances)


@settings(max_examples=20, deadline=None)
@given(tasks())
def test_blocks_change_nothing(task):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking_module, "BLOCK_NUMBERS", {"cpu": 45, "gpu": 45})
        check_against_slow(task, rank_distances)


def test_blocks_of_features_change_nothing(monkeypatch):
    query, gallery = golden_features()
    whole = rank(query, gallery, *golden_names(), device="cpu")
    monkeypatch.setattr(ranking_module, "BLOCK_NUMBERS", {"cpu": 7 * len(gallery), "gpu": 45})
    np.testing.assert_array_equal(rank(query, gallery, *golden_names(), device="cpu").cmc, whole.cmc)


@settings(max_examples=30, deadline=None)
@given(tasks())
def test_gpu_way_gives_the_same_ranks(task):
    distances = torch.tensor(task[0])
    distances[0, ::3] = torch.inf
    rows, columns = (index.astype(np.int64) for index in np.nonzero(np.isfinite(distances.numpy())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match_ranks_module, "_CHUNK_NUMBERS", 100)
        ranks = _match_ranks_torch(distances, rows, columns)
    np.testing.assert_array_equal(ranks, match_ranks(distances, rows, columns))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu():
    query, gallery = golden_features()
    on_gpu = rank(torch.tensor(query).cuda(), torch.tensor(gallery).cuda(), *golden_names())
    assert on_gpu.mAP == pytest.approx(float(GOLDEN["mAP"]), abs=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_golden_from_features(kind):
    query, gallery = golden_features()
    result = rank(kind(query), kind(gallery), *(kind(name) for name in golden_names()), device="cpu")
    assert result.mAP == pytest.approx(float(GOLDEN["mAP"]), abs=1e-9)
    np.testing.assert_allclose(result.cmc, GOLDEN["cmc"], atol=1e-12)
    assert (result.n_queries, result.n_left_out) == (120, 0)
    told = result.as_dict()
    assert [told[f"rank_{k}"] for k in (1, 5, 10)] == [result.cmc[k - 1] for k in (1, 5, 10)]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_golden_from_distances(kind):
    result = rank_distances(kind(GOLDEN["distmat"]), *golden_names())
    assert result.mAP == pytest.approx(float(GOLDEN["mAP"]), abs=1e-12)
    np.testing.assert_allclose(result.cmc, GOLDEN["cmc"], atol=1e-12)
    reranked = rank_distances(kind(GOLDEN["rerank_k20_6_03"]), *golden_names())
    assert reranked.mAP == pytest.approx(float(GOLDEN["rerank_mAP"]), abs=1e-12)


def test_worked_by_hand():
    # Right answers of the query (identity 1, camera 0), nearest first: junk, dropped, wrong, hit, wrong, hit.
    distances = np.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]])
    result = rank_distances(distances, [1], [-1, 1, 9, 1, 2, 1], [0], [1, 0, 1, 1, 1, 2], max_rank=3)
    assert result.average_precision.tolist() == [pytest.approx((1 / 2 + 2 / 4) / 2)]
    assert result.cmc.tolist() == [0, 1, 1]
    assert result.mINP == 2 / 4
    assert result.first_match.tolist() == [2]


def test_ties_rank_by_place_in_the_gallery():
    match_last = rank_distances(np.zeros((1, 3)), [1], [7, 8, 1], [0], [1, 1, 1])
    match_first = rank_distances(np.zeros((1, 3)), [1], [1, 7, 8], [0], [1, 1, 1])
    assert (match_last.mAP, match_first.mAP) == (pytest.approx(1 / 3), 1)


def test_queries_without_match_are_left_out():
    distances = np.array([[0.1, 0.2], [0.2, 0.1], [0.1, 0.2]])
    result = rank_distances(distances, [1, 5, -1], [1, 2], [0, 0, 0], [1, 1])
    assert (result.mAP, result.n_queries, result.n_left_out) == (1, 1, 2)
    assert np.isnan(result.average_precision[1:]).all()


def test_distractors_lower_the_precision_and_junk_does_not():
    distances = np.array([[0.1, 0.2]])
    assert rank_distances(distances, [1], [77, 1], [0], [1, 1]).mAP == 0.5
    assert rank_distances(distances, [1], [-1, 1], [0], [1, 1]).mAP == 1


def test_curve_is_as_long_as_asked_for():
    result = rank_distances(np.array([[0.1]]), [1], [1], [0], [1], max_rank=4)
    assert result.cmc.tolist() == [1, 1, 1, 1]
    assert result.rank(4) == 1
    assert set(result.as_dict()) == {"mAP", "rank_1", "mINP", "queries", "queries_left_out"}
    with pytest.raises(InputError, match="ranks 1 to 4"):
        result.rank(5)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_input_stays_as_it_was(kind):
    distances, before = kind(GOLDEN["distmat"]), kind(GOLDEN["distmat"])
    rank_distances(distances, *golden_names())
    assert (distances == before).all()


def test_read_only_and_integer_distances():
    distances = np.array([[3, 1, 2]])
    distances.flags.writeable = False
    assert rank_distances(distances, [1], [5, 6, 1], [0], [1, 1, 1]).mAP == 0.5


def test_by_camera_equals_each_pair_alone():
    query_ids, gallery_ids, query_cameras, gallery_cameras = golden_names()
    results = rank_by_camera(*golden_features(), *golden_names(), device="cpu")
    from_distances = rank_distances_by_camera(GOLDEN["distmat"], *golden_names())
    assert list(results) == [(a, b) for a in range(5) for b in range(5) if a != b] == list(from_distances)
    for (query_camera, gallery_camera), result in results.items():
        rows, columns = query_cameras == query_camera, gallery_cameras == gallery_camera
        mean, cmc, penalty, n_used, _ = slow_ranking(
            GOLDEN["distmat"][rows][:, columns],
            query_ids[rows],
            gallery_ids[columns],
            query_cameras[rows],
            gallery_cameras[columns],
            50,
        )
        assert result.mAP == pytest.approx(mean, abs=1e-9)
        assert from_distances[query_camera, gallery_camera].mAP == result.mAP
        assert (result.mINP, result.n_queries) == (pytest.approx(penalty), n_used)
        np.testing.assert_allclose(result.cmc, cmc)


def test_pairs_without_a_match_are_absent():
    results = rank_distances_by_camera(np.zeros((2, 3)), [1, -1], [1, 1, -1], [0, 1], [0, 1, 2])
    assert list(results) == [(0, 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.zeros((2, 3))}, "query has 3 dimensions and gallery 2"),
        ({"query": np.zeros((3, 2))}, "query has 3 features and query_ids 2"),
        ({"gallery": np.zeros(2)}, r"gallery has shape \(2,\)"),
        ({"gallery": np.zeros((0, 2))}, r"gallery has shape \(0, 2\)"),
        ({"query": np.array([[np.nan, 0], [0, 1]])}, "query holds numbers that are not finite"),
        ({"query_ids": [0.5, 1.0]}, "query_ids must be whole numbers, got dtype float64"),
        ({"gallery_cameras": [0]}, r"gallery_cameras must have shape \(2,\)"),
        ({"max_rank": 0}, "max_rank must be a whole number of at least 1, got 0"),
        ({"gallery_ids": [8, 9]}, "none of the 2 queries has a match"),
        ({"gallery_ids": [-1, -1]}, "none of the 2 queries has a match"),
        ({"query": np.eye(2) * 1j}, "expected real numbers"),
    ],
)
def test_bad_input(change, message):
    arguments = {
        "query": np.eye(2),
        "gallery": np.eye(2),
        "query_ids": [1, 2],
        "gallery_ids": [1, 2],
        "query_cameras": [0, 0],
        "gallery_cameras": [1, 1],
    }
    assert rank(**arguments).mAP == 1
    with pytest.raises(InputError, match=message):
        rank(**(arguments | change))


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (np.zeros((2, 1)), r"distances has shape \(2, 1\); expected \(1, 2\)"),
        ([[0.0, 1.0]], r"distances has shape \(\)"),
        (np.array([[0.0, np.inf]]), "queries 0 to 0 hold numbers that are not finite"),
        (torch.tensor([[0.0, np.nan]]), "not finite"),
    ],
)
def test_bad_distances(distances, message):
    with pytest.raises(InputError, match=message):
        rank_distances(distances, [1], [1, 2], [0], [1, 1])
    with pytest.raises(InputError, match=message):
        rank_distances_by_camera(distances, [1], [1, 2], [0], [1, 1])
