import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch_threads import threads

from icsr_cli import exact_search
from icsr_cli.distances import (
    ApproximateNeighbours,
    approximate,
    codes,
    knn,
    neighbours,
    neighbours_torch,
    rough,
)
from icsr_cli.distances.neighbours_torch import search_device
from icsr_cli.errors import InputError
from icsr_cli.exact_search import Among
from icsr_cli.types import ALONE


def random_features(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def all_distances(features, metric):
    """Obvious and in float64."""
    x = features.astype(np.float64)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return 1 - x @ x.T
    return ((x[:, None] - x[None]) ** 2).sum(axis=2)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    metric=st.sampled_from(["l2", "cosine"]),
    share=st.floats(0, 1),
)
def test_against_all_distances(n, d, seed, metric, share):
    features = random_features(n, d, seed)
    k = 1 + int(share * (n - 1))
    found = knn(features, k, metric=metric)
    expected = all_distances(features, metric)
    np.testing.assert_allclose(
        found.distances, np.sort(expected, axis=1)[:, :k].clip(0), atol=3e-5, rtol=1e-5
    )
    np.testing.assert_allclose(
        found.distances, np.take_along_axis(expected, found.indices, axis=1), atol=3e-5, rtol=1e-5
    )
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.indices == np.arange(n)[:, None]).sum(axis=1).tolist() == [1] * n
    assert all(len(set(row)) == k for row in found.indices.tolist())


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2500])
def test_over_several_tiles(n):
    features = random_features(n, 32, n)
    found = knn(features, 12)
    block = torch.cdist(torch.from_numpy(features).double(), torch.from_numpy(features).double()) ** 2
    expected, indices = block.topk(12, largest=False)
    np.testing.assert_array_equal(found.indices, indices.numpy())
    np.testing.assert_allclose(found.distances, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("search", ["knn", "device"])
@pytest.mark.parametrize("d", [3, 64, 2048])
def test_ties_go_by_index(d, search):
    """Copies of 40 vectors, shuffled: at distance exactly 0, in ascending order."""
    rng = np.random.default_rng(d)
    source = rng.integers(0, 40, 300)
    features = random_features(40, d, d)[source]
    k = 300
    if search == "knn":
        found = knn(features, k)
        indices, distances = found.indices, found.distances
    else:
        indices, distances = (part.numpy() for part in search_device(torch.from_numpy(features), k))
    for row in range(300):
        copies = np.flatnonzero(source == source[row])
        np.testing.assert_array_equal(indices[row, : len(copies)], copies)
        assert (distances[row, : len(copies)] == 0).all()
        assert (distances[row, len(copies) :] > 0).all()


@pytest.mark.parametrize("search", ["knn", "device"])
def test_more_copies_than_k(search):
    """Every vector stays among its own neighbours: in the last place where copies fill the others."""
    features = np.tile(random_features(1, 16, 0), (50, 1))
    if search == "knn":
        found = knn(features, 5).indices
    else:
        found = search_device(torch.from_numpy(features), 5)[0].numpy()
    for row in range(50):
        assert row in found[row]
    if search == "knn":
        np.testing.assert_array_equal(found[:5], np.tile(np.arange(5), (5, 1)))
        np.testing.assert_array_equal(found[20], [0, 1, 2, 3, 20])


@pytest.mark.parametrize("search", ["knn", "device"])
@pytest.mark.parametrize("apart", [1e-2, 1e-3])
def test_vectors_nearly_at_one_place(apart, search):
    """A collapsing network's: what they have in common leaves a float32 product little of the rest."""
    rng = np.random.default_rng(1)
    features = (1 + apart * rng.standard_normal((300, 256))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    exact = features.astype(np.float64)
    expected = np.square(exact[:, None] - exact).sum(axis=2).argsort(axis=1, kind="stable")[:, :30]
    if search == "knn":
        found = knn(features, 30).indices
    else:
        found = search_device(torch.from_numpy(features), 30)[0].numpy()
    np.testing.assert_array_equal(found, expected)


def test_threads_change_nothing():
    """Over tiles that are merged in any order, with copies in all of them."""
    source = np.random.default_rng(0).integers(0, 900, 3300)
    features = random_features(900, 24, 0)[source]
    results = []
    for count in (1, 4):
        with threads(count):
            results.append(knn(features, 12))
    np.testing.assert_array_equal(results[0].indices, results[1].indices)
    np.testing.assert_array_equal(results[0].distances, results[1].distances)
    for row in (0, 1500, 3299):
        copies = np.flatnonzero(source == source[row])[:12]
        np.testing.assert_array_equal(results[0].indices[row, : len(copies)], copies)


def test_other_devices_path_gives_the_same():
    features = torch.from_numpy(random_features(700, 48, 3))
    indices, distances = search_device(features, 20)
    expected = knn(features, 20)
    assert torch.equal(indices, expected.indices)
    torch.testing.assert_close(distances, expected.distances, atol=1e-4, rtol=1e-5)


class Resources:
    def setTempMemory(self, size):  # noqa: N802 - the name of faiss
        assert size <= 2**30


def search_by_faiss(monkeypatch, answer):
    """The path over faiss on a GPU, with faiss on the CPU in its place."""
    import faiss
    import faiss.contrib.torch_utils

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)  # not in faiss-cpu
    monkeypatch.setattr(faiss, "knn_gpu", answer)
    features = torch.from_numpy(random_features(200, 16, 0))
    return neighbours_torch._faiss_candidates(features, features, 15)


def test_candidates_from_faiss(monkeypatch):
    def answer(resources, queries, base, k, device):
        import faiss

        assert isinstance(resources, Resources)
        assert device == 0
        return faiss.knn(queries, base, k)

    candidates = search_by_faiss(monkeypatch, answer)
    features = torch.from_numpy(random_features(200, 16, 0))
    indices, distances = neighbours_torch.ordered(features, candidates, 10)
    expected = knn(features, 10)
    assert torch.equal(indices, expected.indices)
    torch.testing.assert_close(distances, expected.distances, atol=1e-4, rtol=1e-5)


def test_faiss_that_fails_on_its_gpu(monkeypatch):
    def answer(*_, **__):
        raise RuntimeError("no kernel image")

    with pytest.warns(UserWarning, match="faiss failed on GPU 0, using torch: no kernel image"):
        assert search_by_faiss(monkeypatch, answer) is None


def test_no_faiss_gpu():
    import faiss

    if faiss.get_num_gpus():
        pytest.skip("faiss has GPUs here")
    assert neighbours_torch._faiss_candidates(torch.ones(3, 2), torch.ones(3, 2), 2) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_gpu_gives_the_same(metric):
    features = torch.from_numpy(random_features(3000, 64, 0))
    found = knn(features.cuda(), 20, metric=metric)
    expected = knn(features, 20, metric=metric)
    assert found.indices.is_cuda
    assert torch.equal(found.indices.cpu(), expected.indices)
    torch.testing.assert_close(found.distances.cpu(), expected.distances, atol=1e-4, rtol=1e-5)


def test_same_kind_out():
    features = random_features(30, 4, 0)
    array, tensor = knn(features, 5), knn(torch.from_numpy(features), 5)
    assert isinstance(array.indices, np.ndarray)
    assert array.indices.dtype == np.int64
    assert array.distances.dtype == np.float32
    assert tensor.indices.dtype == torch.int64
    np.testing.assert_array_equal(array.indices, tensor.indices.numpy())
    half = knn(torch.from_numpy(features).half().requires_grad_(), 5)
    assert half.distances.dtype == torch.float32
    assert not half.distances.requires_grad


def test_no_torch_for_arrays():
    """Importing it takes seconds and 0.7 GB; the CPU path does without."""
    code = (
        "import sys, numpy as np; from icsr_cli.distances import jaccard_similarity;"
        "from icsr_cli.clustering import average_linkage;"
        "s = jaccard_similarity(np.random.default_rng(0).standard_normal((60, 8)));"
        "average_linkage(s, n_clusters=6); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_does_not_change_its_input():
    features = random_features(50, 8, 1)
    features.flags.writeable = False
    before = features.copy()
    knn(features, 5, metric="cosine")
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("index", ["hnsw", "int8", "ivf"])
def test_approximate_index(index):
    """Clustered vectors: nearly all neighbours are found, and the recall says how many."""
    rng = np.random.default_rng(0)
    features = random_features(60, 32, 0)[rng.integers(0, 60, 1500)] + 0.3 * random_features(1500, 32, 1)
    exact, found = knn(features, 10), knn(features, 10, approximate=index)
    assert isinstance(found, ApproximateNeighbours)
    hits = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.indices, found.indices, strict=True)])
    assert hits > 0.9
    assert found.recall == pytest.approx(hits, abs=0.02)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.indices == np.arange(1500)[:, None]).any(axis=1).all()


@pytest.mark.parametrize("index", ["hnsw", "int8", "ivf"])
def test_approximate_index_of_few_vectors(index):
    features = random_features(12, 4, 0)
    found = knn(features, 12, approximate=index)
    assert np.isfinite(found.distances).all()
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.tile(np.arange(12), (12, 1)))


GOOD = random_features(10, 4, 0)


def with_value(value):
    features = GOOD.copy()
    features[3] = value
    return features


@pytest.mark.parametrize(
    ("features", "k", "options", "message"),
    [
        (with_value(np.nan), 3, {}, r"features must be finite, 1 rows \(3\)"),
        (with_value(np.inf), 3, {}, "features must be finite"),
        (torch.from_numpy(with_value(np.nan)), 3, {}, "features must be finite"),
        (with_value(5e18), 3, {}, "overflowing"),  # its square is finite, its squared distances are not
        (with_value(0), 3, {}, r"zero vectors, 1 rows \(3\)"),
        (with_value(1e-22), 3, {}, r"shorter than 1e-19"),  # its square has two digits
        (GOOD[0], 3, {}, r"features must have shape \(n, d\).*got \(4,\)"),
        (GOOD[:0], 3, {}, r"got \(0, 4\)"),
        (np.array([["a", "b"]]), 1, {}, "features must be an array of numbers"),
        (GOOD, 11, {}, "k must be at most the number of features, got k = 11 for 10"),
        (GOOD, 0, {}, "k must be a whole number of at least 1, got 0"),
        (GOOD, 2.5, {}, "k must be a whole number"),
        (GOOD, True, {}, "k must be a whole number"),
        (GOOD, 3, {"metric": "l1"}, "metric must be 'l2' or 'cosine', got 'l1'"),
        (GOOD, 3, {"approximate": "lsh"}, "approximate must be"),
    ],
)
def test_bad_input(features, k, options, message):
    with pytest.raises(InputError, match=message):
        knn(features, k, **options)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 200), width=st.integers(1, 16), top=st.integers(1, 127), seed=st.integers(0, 10**6))
@example(n=200, width=1, top=1, seed=2)  # nearest of 18 at distance 0, over several tiles
def test_lists_by_codes_against_all_distances(n, width, top, seed):
    """Whole numbers, so that the slow way gives the same to the bit; few values make many ties."""
    rng = np.random.default_rng(seed)
    values = np.zeros((n, 16), dtype=np.int8)
    top = min(top, codes.largest_code())
    values[:, :width] = rng.integers(-top, top + 1, (n, width))
    squares = (values.astype(np.float32) ** 2).sum(axis=1)
    found = rough.Rough(values, squares, 1.0, np.zeros(n, dtype=np.float32))
    kept, tile = 1 + int(n * rng.random() ** 3), int(rng.integers(1, 70))  # short lists are full of ties
    with mock.patch.object(exact_search, "TILE", tile):
        [keys] = found.nearest([Among(kept)], np.zeros(n, dtype=np.int64), ALONE)
    slow = ((values[:, None].astype(np.int64) - values[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.squared_distances(slice(None)), slow)
    np.fill_diagonal(slow, -1)
    order = np.argsort(slow, axis=1, kind="stable")[:, :kept]
    np.fill_diagonal(slow, 0)
    np.testing.assert_array_equal(exact_search.indices_of(keys), order)
    np.testing.assert_array_equal(exact_search.distances_of(keys), np.take_along_axis(slow, order, axis=1))


@settings(max_examples=60, deadline=None)
@given(
    d=st.integers(1, 40),
    k=st.integers(1, 6),
    spread=st.floats(0, 3),
    copies=st.integers(0, 40),
    most=st.sampled_from([3, 20, 127]),
    seed=st.integers(0, 10**6),
)
def test_exact_search_by_codes(d, k, spread, copies, most, seed):
    """However coarse the codes, how many copies, how uneven the numbers: what is not proven is searched."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((150, d)) * np.arange(1, d + 1) ** -spread
    features[rng.integers(0, 150, copies)] = features[rng.integers(0, 150, copies)]
    features = np.float32(features / np.linalg.norm(features, axis=1, keepdims=True))
    with (
        mock.patch.multiple(rough, ENOUGH=0, ROOM=1, MOST=150),
        mock.patch.object(codes, "CHUNK", int(rng.integers(1, 150 * d))),
        mock.patch.object(codes, "largest_code", return_value=min(most, codes.largest_code())),
    ):
        groups = np.zeros(150, dtype=np.int64)
        choices = [codes.encode(150, d, features.__getitem__)]
        [(indices, distances)] = rough.search_roughly(features, choices, [Among(k)], groups, ALONE)
    expected = all_distances(features, "l2")
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :k], atol=2e-6)
    np.testing.assert_allclose(distances, np.take_along_axis(expected, indices, axis=1), atol=2e-6)
    np.testing.assert_array_equal(indices, knn(features, k).indices)


@settings(max_examples=40, deadline=None)
@given(
    d=st.integers(1, 60), length=st.floats(1e-3, 1e3), most=st.integers(1, 127), seed=st.integers(0, 10**6)
)
def test_codes_are_no_farther_off_than_they_say(d, length, most, seed):
    features = np.float32(length) * random_features(80, d, seed)
    with mock.patch.object(codes, "largest_code", return_value=min(most, codes.largest_code())):
        found = codes.encode(80, d, lambda own: features[own])
    others = ~np.eye(80, dtype=bool)
    bound = found.no_nearer(found.squared_distances(slice(None)), np.arange(80))[others]
    true = all_distances(features, "l2")[others]
    assert (bound <= true).all()
    if most == codes.largest_code() and d > 8:
        assert np.median(bound / true) > 0.85


def test_codes_give_way_where_they_prove_little():
    """A thousand copies of one vector: no code tells the tenth nearest from the hundredth."""
    features = np.tile(random_features(1, 32, 0), (1000, 1)) + 1e-3 * random_features(1000, 32, 1)
    features[:10] = random_features(10, 32, 2)
    choices, one_group = [codes.encode(1000, 32, features.__getitem__)], np.zeros(1000, dtype=np.int64)
    assert rough.search_roughly(features, choices, [Among(5)], one_group, ALONE) is None


def test_large_searches_take_codes():
    features = random_features(700, 40, 0)
    plain = knn(features, 9)
    for fast in (False, True):
        with (
            mock.patch.multiple(neighbours, WORTH_SKETCHES=0, WORTH_CODES=700 * 700 * 40),
            mock.patch.object(codes, "are_fast", return_value=fast),
            mock.patch.object(codes, "encode", wraps=codes.encode) as asked,
        ):
            found = knn(features, 9)
            assert asked.call_count == fast
        np.testing.assert_array_equal(found.indices, plain.indices)
        np.testing.assert_allclose(found.distances, plain.distances, atol=2e-5)


def test_codes_take_the_dimensions_that_they_need():
    """300 vectors of 4 directions fit into the first 64 dimensions; of 256 equal ones they do not."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((3000, 256)).astype(np.float32)
    thin = rng.standard_normal((3000, 4)).astype(np.float32) @ rng.standard_normal((4, 256)).astype(
        np.float32
    )
    widths = []

    def watched(x, centre, axes):
        widths.append(axes.shape[1])
        return encode(x, centre, axes)

    encode = approximate._encode
    with mock.patch.object(approximate, "_encode", watched):
        for features, expected in ((thin, [64]), (flat, [64, 128, 256])):
            widths.clear()
            assert knn(features, 10, approximate="int8").recall > 0.98
            assert widths == expected


def test_codes_of_one_dimension():
    features = np.linspace(-1, 1, 120, dtype=np.float32)[:, None] ** 3
    assert knn(features, 10, approximate="int8").recall > 0.9


def test_codes_on_a_processor_that_adds_in_16_bits():
    features = random_features(500, 70, 0)
    with mock.patch.object(codes, "largest_code", return_value=63):
        assert knn(features, 10, approximate="int8").recall > 0.98


def test_the_recall_is_measured_where_little_is_found():
    """An index that finds the first vectors for everybody has no way to say that it has found the nearest."""
    features = random_features(1200, 16, 0)
    nothing = np.column_stack([np.arange(1200), np.tile(np.arange(30), (1200, 1))]).astype(np.uint64)
    with mock.patch.object(approximate, "_by_codes", return_value=nothing):
        found = knn(features, 15, approximate="int8")
    exact = knn(features, 15)
    hits = np.mean([len(set(a) & set(b)) / 15 for a, b in zip(exact.indices, found.indices, strict=True)])
    assert found.recall == pytest.approx(hits, abs=0.01)
    assert hits < 0.2
    assert (np.diff(found.distances, axis=1) >= 0).all()
    gaps = ((features[:, None] - features[found.indices]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found.distances, gaps, atol=1e-4)
