import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import AgglomerativeClustering
from torch_threads import threads

from icsr_cli.choices import find
from icsr_cli.clusterers.average_linkage import SIZES, best_cut
from icsr_cli.clustering import average_linkage, silhouette
from icsr_cli.distances import jaccard_similarity
from icsr_cli.errors import InputError
from icsr_cli.types import by_first_appearance


def random_similarity(n, density, seed, dtype=np.float64):
    """Symmetric, without ties among the stored pairs."""
    rng = np.random.default_rng(seed)
    rows, columns = np.triu_indices(n, 1)
    kept = rng.random(len(rows)) < density
    values = rng.permutation(np.linspace(0.05, 0.95, max(1, kept.sum())))[: kept.sum()]
    values = values * rng.uniform(0.999, 1, len(values))
    upper = sp.coo_array((values, (rows[kept], columns[kept])), shape=(n, n))
    return sp.csr_array(upper + upper.T + sp.eye_array(n)).astype(dtype)


def scipy_merges(similarity):
    distances = 1 - similarity.toarray().astype(np.float64)
    np.fill_diagonal(distances, 0)
    return linkage(squareform(distances, checks=False), "average")


def cut(merges, n, steps):
    """Labels after the first so many merges of a scipy linkage."""
    members = [{i} for i in range(n)]
    alive = set(range(n))
    for a, b, _, _ in merges[:steps]:
        members.append(members[int(a)] | members[int(b)])
        alive -= {int(a), int(b)}
        alive.add(len(members) - 1)
    labels = np.empty(n, dtype=np.int64)
    for name in alive:
        labels[list(members[name])] = name
    return by_first_appearance(labels)


@pytest.mark.parametrize("seed", range(200))
def test_against_scipy(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    similarity = random_similarity(n, rng.uniform(0.05, 1), seed, rng.choice([np.float32, np.float64]))
    merges = scipy_merges(similarity)
    below = int((merges[:, 2] < 1 - 1e-9).sum())  # above, all pairs tie
    for steps in {0, below // 2, below}:
        found = average_linkage(similarity, n_clusters=n - steps)
        np.testing.assert_array_equal(found, cut(merges, n, steps), err_msg=f"seed {seed}, {steps} merges")
    gaps = np.diff(merges[:below, 2])
    for steps in {below // 3, 2 * below // 3}:
        if 0 < steps < below and gaps[steps - 1] > 1e-9:
            threshold = merges[steps - 1 : steps + 1, 2].mean()
            found = average_linkage(similarity, distance_threshold=threshold)
            np.testing.assert_array_equal(found, cut(merges, n, steps), err_msg=f"seed {seed}, {threshold}")


def test_larger_against_scikit_learn():
    similarity = random_similarity(600, 0.1, 7, np.float32)
    dense = 1 - similarity.toarray().astype(np.float64)
    np.fill_diagonal(dense, 0)
    for options in ({"n_clusters": 100}, {"n_clusters": None, "distance_threshold": 0.9}):
        model = AgglomerativeClustering(metric="precomputed", linkage="average", **options).fit(dense)
        found = average_linkage(similarity, **options)
        np.testing.assert_array_equal(found, by_first_appearance(model.labels_.astype(np.int64)))


def test_worked_by_hand():
    """0-1 at 7/8, 2-3 at 3/4, 0-2 at 1/2: the pairs merge at 1/8 and 1/4, then at 1 - 1/2 / 4 = 7/8."""
    similarity = np.array([[1, 0.875, 0.5, 0], [0.875, 1, 0, 0], [0.5, 0, 1, 0.75], [0, 0, 0.75, 1]])
    assert average_linkage(similarity, distance_threshold=0.125).tolist() == [0, 1, 2, 3]
    assert average_linkage(similarity, distance_threshold=0.126).tolist() == [0, 0, 1, 2]
    assert average_linkage(similarity, distance_threshold=0.251).tolist() == [0, 0, 1, 1]
    assert average_linkage(similarity, distance_threshold=0.875).tolist() == [0, 0, 1, 1]
    assert average_linkage(similarity, distance_threshold=0.876).tolist() == [0, 0, 0, 0]
    assert average_linkage(similarity, n_clusters=3).tolist() == [0, 0, 1, 2]


def test_merges_at_distance_one():
    """Components of 3, 1, 2 and 1 images: the two single ones first, then with the pair, then all."""
    block = sp.block_diag([sp.coo_array(np.full((size, size), 0.9)) for size in (3, 1, 2, 1)])
    assert average_linkage(block, n_clusters=4).tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert average_linkage(block, n_clusters=3).tolist() == [0, 0, 0, 1, 2, 2, 1]
    assert average_linkage(block, n_clusters=2).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert average_linkage(block, n_clusters=1).tolist() == [0] * 7
    assert average_linkage(block, distance_threshold=1).tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert average_linkage(block, distance_threshold=1.5).tolist() == [0] * 7


def test_nothing_in_common():
    assert average_linkage(sp.csr_array((5, 5)), n_clusters=2).tolist() == [0, 0, 1, 1, 0]
    assert average_linkage(sp.eye_array(3), distance_threshold=0.5).tolist() == [0, 1, 2]
    assert average_linkage(np.ones((1, 1)), n_clusters=1).tolist() == [0]


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 40), levels=st.integers(1, 4), seed=st.integers(0, 10**6), data=st.data())
def test_ties(n, levels, seed, data):
    """With few distinct values all over: the asked number of clusters, each merge a nearest pair."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(0, levels + 1, (n, n)) / levels, 1)
    similarity = upper + upper.T
    count = data.draw(st.integers(1, n))
    labels = average_linkage(sp.csr_array(similarity), n_clusters=count)
    assert len(np.unique(labels)) == count
    np.testing.assert_array_equal(labels, by_first_appearance(labels))
    np.testing.assert_array_equal(labels, average_linkage(similarity, n_clusters=count))
    if count < n:  # the next finer cut differs by one merge
        finer = average_linkage(similarity, n_clusters=count + 1)
        assert len({(a, b) for a, b in zip(finer, labels, strict=True)}) == count + 1


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), density=st.floats(0.05, 1), seed=st.integers(0, 10**6))
def test_invariant_to_the_order_of_images(n, density, seed):
    similarity = random_similarity(n, density, seed)
    order = np.random.default_rng(seed).permutation(n)
    labels = average_linkage(similarity, distance_threshold=0.7)
    shuffled = average_linkage(similarity[order][:, order], distance_threshold=0.7)
    np.testing.assert_array_equal(shuffled, by_first_appearance(labels[order]))


def test_stored_zeros_and_the_diagonal_do_not_matter():
    similarity = random_similarity(40, 0.3, 0)
    expected = average_linkage(similarity, n_clusters=10)
    padded = sp.csr_array(np.where(similarity.toarray() == 0, 2.0, similarity.toarray()))
    padded.data[padded.data == 2] = 0  # every zero is stored
    padded.setdiag(0.3)
    for form in (padded, sp.coo_array(similarity), sp.csc_array(similarity), similarity.toarray()):
        np.testing.assert_array_equal(average_linkage(form, n_clusters=10), expected)


def test_mirrors_that_differ_in_the_last_digit():
    """It ends, and the labels are those of the symmetric matrix."""
    similarity = random_similarity(80, 0.5, 1)
    expected = average_linkage(similarity, n_clusters=20)
    shaken = similarity.copy()
    shaken.data *= 1 - 1e-12 * np.random.default_rng(0).random(shaken.nnz)
    np.testing.assert_array_equal(average_linkage(shaken, n_clusters=20), expected)
    ties = np.full((30, 30), 0.5) * (1 - 1e-9 * np.random.default_rng(0).random((30, 30)))
    assert len(np.unique(average_linkage(ties, n_clusters=4))) == 4


def test_does_not_change_its_input():
    similarity = random_similarity(30, 0.5, 2)
    before = similarity.copy()
    average_linkage(similarity, n_clusters=5)
    assert (similarity != before).nnz == 0


GOOD = random_similarity(10, 0.5, 0)


@pytest.mark.parametrize(
    ("similarity", "options", "message"),
    [
        (GOOD, {}, "either n_clusters or distance_threshold"),
        (GOOD, {"n_clusters": 3, "distance_threshold": 0.5}, "either n_clusters or distance_threshold"),
        (GOOD, {"n_clusters": 0}, "n_clusters must be a whole number of at least 1, got 0"),
        (GOOD, {"n_clusters": 11}, "n_clusters must be at most 10, the number of images, got 11"),
        (GOOD, {"n_clusters": 2.0}, "n_clusters must be a whole number of at least 1, got 2.0"),
        (GOOD, {"distance_threshold": 0.0}, "distance_threshold must be a number above 0"),
        (GOOD, {"distance_threshold": np.nan}, "distance_threshold must be a number above 0"),
        (GOOD, {"distance_threshold": "0.5"}, "distance_threshold must be a number above 0, got '0.5'"),
        (GOOD[:5], {"n_clusters": 3}, r"similarity must have shape \(n, n\) with n >= 1, got \(5, 10\)"),
        (np.ones(4), {"n_clusters": 3}, r"similarity must have shape \(n, n\), got \(4,\)"),
        ([[1.0]], {"n_clusters": 1}, "a sparse array of scipy, or a dense one of numpy or torch, got list"),
        (GOOD * np.nan, {"n_clusters": 3}, "similarity must lie in 0 to 1"),
        (-GOOD, {"n_clusters": 3}, "similarity must lie in 0 to 1"),
        (GOOD * 2, {"n_clusters": 3}, "similarity must lie in 0 to 1"),
        (sp.triu(GOOD).tocsr(), {"n_clusters": 3}, r"similarity must be symmetric, but entry \(\d, \d\) is"),
        (GOOD.astype(complex), {"n_clusters": 3}, "similarity must hold numbers, got dtype complex128"),
    ],
)
def test_bad_input(similarity, options, message):
    with pytest.raises(InputError, match=message):
        average_linkage(similarity, **options)


@pytest.mark.parametrize("seed", range(5))
def test_auto_cuts_where_the_silhouette_is_highest(seed):
    """Against a clustering for each number of clusters, and near the people that there are."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(20), rng.integers(3, 9, 20))
    features = rng.standard_normal((20, 16))[ids] + 0.3 * rng.standard_normal((len(ids), 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = jaccard_similarity(features.astype(np.float32), 10, 3)
    found = best_cut(similarity)
    n = len(ids)
    tried = {min(n, max(2, round(n / size))) for size in SIZES}
    values = {k: silhouette(similarity, average_linkage(similarity, n_clusters=k)) for k in tried}
    most = max(values.values())
    assert silhouette(similarity, found) == most
    assert found.max() + 1 == max(k for k, value in values.items() if value == most)
    assert abs(found.max() + 1 - 20) <= 4, (seed, found.max() + 1)


def test_auto_among_settings():
    options = find("clusterers", "average-linkage").Options
    assert options(images_per_cluster="auto").dump()["images_per_cluster"] == "auto"
    for wrong in ("many", 0, 2.5):
        with pytest.raises(ValueError, match="images_per_cluster"):
            options(images_per_cluster=wrong)
    one_of_three = "takes one of n_clusters, distance_threshold, images_per_cluster"
    for ways in ({}, {"n_clusters": 3, "distance_threshold": 0.5}):
        with pytest.raises(ValueError, match=one_of_three):
            options(**ways)


def test_auto_of_images_that_share_nothing():
    assert set(best_cut(sp.csr_array(np.eye(5, dtype=np.float32))).tolist()) == {0, 1}
    for few in (1, 2):
        assert best_cut(sp.csr_array(np.eye(few, dtype=np.float32))).tolist() == list(range(few))
    assert best_cut(sp.csr_array(np.eye(8, dtype=np.float32))).max() == 3  # the most clusters, on a tie
    pairs = sp.csr_array(np.kron(np.eye(9), np.full((2, 2), 0.9)).astype(np.float32))
    assert best_cut(pairs).tolist() == np.repeat(np.arange(9), 2).tolist()


def test_sums_of_large_clusters_fit():
    people = np.repeat([0, 1, 2], [150, 150, 20])
    similarity = np.where(people[:, None] == people, 0.9, 0.1).astype(np.float32)
    similarity[:150, 150:300] = similarity[150:300, :150] = 0.5
    assert average_linkage(similarity, n_clusters=2).tolist() == [0] * 300 + [1] * 20


def test_threads_change_nothing():
    """Neither the clusters nor, to the last bit, what chooses their number."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((60, 16))[rng.integers(0, 60, 600)] + 0.6 * rng.standard_normal((600, 16))
    found = []
    for count in (1, 3):
        with threads(count):
            similarity = jaccard_similarity(features)
            labels = best_cut(similarity)
            found.append((labels, silhouette(similarity, labels)))
    (labels, value), (others, other) = found
    np.testing.assert_array_equal(labels, others)
    assert value == other


def slow_chain(similarity, n_clusters):
    """Follow the nearest cluster until two are nearest to each other; the most similar join first."""
    members, chain, merges, start = {i: [i] for i in range(len(similarity))}, [], [], 0
    while start < len(similarity):
        if not chain and start not in members:
            start += 1
            continue
        chain = chain or [start]
        top, before = chain[-1], chain[-2:-1]
        means = {b: similarity[np.ix_(members[top], members[b])].mean() for b in members if b != top}
        highest = max(means.values(), default=0)
        alike = [b for b in means if means[b] == highest]
        if highest == 0:
            chain, start = [], start + 1
        elif before and before[0] in alike:
            low, high = sorted((top, before[0]))
            merges.append((-highest, low, high))
            members[low] += members.pop(high)
            del chain[-2:]
        else:
            chain.append(min(alike))
    labels = np.arange(len(similarity))
    for _, low, high in sorted(merges, key=lambda merge: merge[0])[: len(similarity) - n_clusters]:
        labels[labels == labels[high]] = labels[low]
    return by_first_appearance(labels)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(2, 25), levels=st.sampled_from([1, 2, 4]), seed=st.integers(0, 10**6), data=st.data())
def test_ties_go_where_the_chain_came_from_then_to_the_lowest_image(n, levels, seed, data):
    """Multiples of a quarter: means of them that are equal are equal to the last bit."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(0, levels + 1, (n, n)) / levels, 1)
    similarity = upper + upper.T
    joined = average_linkage(similarity, distance_threshold=1).max() + 1  # without those that share nothing
    count = data.draw(st.integers(int(joined), n))
    found = average_linkage(similarity, n_clusters=count)
    np.testing.assert_array_equal(found, slow_chain(similarity, count))
