"""What somebody said of pairs is obeyed, whatever the clusterer and the refiners do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.choices import find
from icsr_cli.errors import InputError
from icsr_cli.labelling import KnownEvidence, constraints, label
from icsr_cli.labelling._kernels import seed_sides
from icsr_cli.types import Labels, Pairs, by_first_appearance

NONE = np.empty((0, 2), dtype=np.int64)


def _pairs(same: Any = (), different: Any = ()) -> Pairs:
    return Pairs(*(np.array(list(pairs), dtype=np.int64).reshape(-1, 2) for pairs in (same, different)))


@dataclass(frozen=True)
class Known:
    """Evidence whose similarity is given."""

    given: sp.csr_array
    pairs: Pairs | None = None
    cameras: Any = None
    local: Any = None
    tracks: Any = None
    previous: Any = None
    least: float = 0.0

    def __len__(self) -> int:
        return int(self.given.shape[0])

    @property
    def similarity(self) -> sp.csr_array:
        return self.given if self.pairs is None else constraints.write_in(self.given, self.pairs)


def _similarity(generator: np.random.Generator, n: int, density: float) -> sp.csr_array:
    upper = np.triu(generator.random((n, n)) * (generator.random((n, n)) < density), 1)
    return sp.csr_array((upper + upper.T + np.eye(n)).astype(np.float32))


def _consistent(generator: np.random.Generator, n: int, count: int) -> Pairs:
    """Random pairs with the answers of one hidden truth: every set without contradiction is of this kind."""
    truth = generator.integers(0, max(1, n // 3), n)
    pairs = generator.integers(0, n, (count, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    equal = truth[pairs[:, 0]] == truth[pairs[:, 1]]
    return Pairs(pairs[equal], pairs[~equal])


class Random:
    """A refiner that leaves out, splits and joins at random, and gives shares."""

    def __init__(self, seed: int) -> None:
        self.module, self.seed = self, seed

    def refine(self, evidence: Any, labels: Labels, options: Any) -> Labels:
        generator = np.random.default_rng(self.seed)
        found = np.where(
            labels.labels < 0, -1, labels.labels // 2 * 2 + generator.integers(0, 2, len(evidence))
        )
        out = generator.random(len(evidence)) < 0.3
        found = by_first_appearance(np.where(out, -1, found))
        soft = sp.csr_array(np.eye(found.max(initial=-1) + 2)[found][:, :-1].astype(np.float32))
        return replace(labels, labels=found, states=labels.marked((out, "out")), soft=soft)


CLUSTERERS = [
    ("dbscan", {"eps": 0.6, "min_samples": 2}),
    ("average-linkage", {"distance_threshold": 0.8}),
    ("hdbscan", {}),
]


def _methods(number: int, *refiners: Any) -> Any:
    name, options = CLUSTERERS[number]
    return SimpleNamespace(clusterer=find("clusterers", name).Options(**options), refiners=refiners)


worlds = given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(6, 40),
    density=st.floats(0.05, 0.9),
    count=st.integers(0, 40),
    method=st.integers(0, len(CLUSTERERS) - 1),
)


def _assert_obeyed(labels: Any, pairs: Pairs) -> None:
    np.testing.assert_array_equal(labels[pairs.same[:, 0]], labels[pairs.same[:, 1]])
    first, second = labels[pairs.different].T
    assert not ((first == second) & (first >= 0)).any()


@settings(max_examples=80, deadline=None)
@worlds
def test_clusters_and_labels_obey(seed: int, n: int, density: float, count: int, method: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = _consistent(generator, n, count)
    evidence = Known(_similarity(generator, n, density), pairs)
    found = label(evidence, _methods(method, Random(seed), Random(seed + 1)))
    _assert_obeyed(found.clusters, pairs)
    assert (found.clusters[pairs.same] >= 0).all(), "who is the same as somebody is no noise"
    _assert_obeyed(found.labels, pairs)
    for labels in (found.clusters, found.labels):
        np.testing.assert_array_equal(labels, by_first_appearance(labels))
    kept = found.labels >= 0
    np.testing.assert_array_equal(np.isin(found.states, ("kept",)), kept)
    soft = found.soft.toarray()
    assert soft.shape == (n, found.n_clusters)
    np.testing.assert_array_equal(
        np.argwhere(soft == 1), np.column_stack([np.flatnonzero(kept), found.labels[kept]])
    )
    assert soft.sum() == kept.sum()
    named = np.bincount(np.concatenate([pairs.same, pairs.different]).ravel(), minlength=n)
    np.testing.assert_array_equal(found.columns["pairs"], named)


@settings(max_examples=30, deadline=None)
@worlds
def test_nobody_said_anything(seed: int, n: int, density: float, count: int, method: int) -> None:
    """No pairs, and pairs that are obeyed anyway, change nothing, to the bit."""
    generator = np.random.default_rng(seed)
    similarity = _similarity(generator, n, density)
    methods = _methods(method, Random(seed))
    plain = label(Known(similarity), methods)
    silent = label(Known(similarity, _pairs()), methods)
    for field in ("clusters", "labels", "states"):
        np.testing.assert_array_equal(getattr(silent, field), getattr(plain, field))
    np.testing.assert_array_equal(silent.columns["cohesion"], plain.columns["cohesion"])
    assert plain.figures == {"silhouette": plain.figures["silhouette"]}
    assert "pairs" not in plain.columns
    assert silent.figures["silhouette"] == pytest.approx(plain.figures["silhouette"], nan_ok=True, abs=0)


@settings(max_examples=40, deadline=None)
@worlds
def test_within_says_what_follows(seed: int, n: int, density: float, count: int, method: int) -> None:
    """Of a part of the images the same is known as of all, followed to the end."""
    generator = np.random.default_rng(seed)
    pairs = _consistent(generator, n, count)
    rows = np.flatnonzero(generator.random(n) < density)
    whole, part = (
        constraints.Rules.of(pairs, n),
        constraints.Rules.of(constraints.within(pairs, rows, n), len(rows)),
    )
    groups = whole.groups[rows]
    np.testing.assert_array_equal(part.groups[:, None] == part.groups, groups[:, None] == groups)

    def apart(rules: constraints.Rules, own: Any) -> Any:
        known = {(a, b) for a, b in rules.apart.tolist()}
        return [[(min(a, b), max(a, b)) in known for b in own.tolist()] for a in own.tolist()]

    assert apart(part, part.groups) == apart(whole, groups)


def _two_blobs() -> sp.csr_array:
    """Images 0 to 3 and 4 to 7, alike within (0.8), and a bridge of 0.6 between 3 and 4; 8 is like nobody."""
    matrix = np.zeros((9, 9), dtype=np.float32)
    matrix[:4, :4] = matrix[4:8, 4:8] = 0.8
    matrix[3, 4] = matrix[4, 3] = 0.6
    np.fill_diagonal(matrix, 1)
    return sp.csr_array(matrix)


def _label(pairs: Pairs | None, similarity: sp.csr_array | None = None) -> list[int]:
    given = _two_blobs() if similarity is None else similarity
    return label(Known(given, pairs), _methods(0)).clusters.tolist()


def _slow_sides(order: Any, clusters: Any, against: Any, weights: Any, sizes: Any) -> list[int]:
    sides: list[list[int]] = []
    found = [-1] * len(clusters)
    for node in order:
        free = [
            side
            for side, nodes in enumerate(sides)
            if clusters[nodes[0]] == clusters[node] and not against[node, nodes].any()
        ]
        means = [weights[node, sides[side]].sum() / sizes[sides[side]].sum() for side in free]
        if means:
            side = free[int(np.argmax(means))]  # the first on a tie
            sides[side].append(node)
        else:
            side = len(sides)
            sides.append([node])
        found[node] = side
    return found


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 24), clusters=st.integers(1, 3), tight=st.booleans())
def test_sides_are_those_of_the_slow_version(seed: int, k: int, clusters: int, tight: bool) -> None:
    """Who is in conflict goes where it is most similar in the mean, of where nobody is against it."""
    generator = np.random.default_rng(seed)
    own = np.sort(generator.integers(0, clusters, k))
    sizes = generator.integers(1, 5, k)
    inside = (own[:, None] == own) & ~np.eye(k, dtype=bool)
    # Eighths: sums are exact in any order, and ties are there.
    upper = np.triu(generator.integers(0, 3 if tight else 9, (k, k)) / 8 * inside, 1)
    weights = upper + upper.T
    upper = np.triu(generator.random((k, k)) < generator.random(), 1)
    against = (upper | upper.T) & inside
    order = generator.permutation(np.flatnonzero(generator.random(k) < 0.8))
    order = order[np.argsort(own[order], kind="stable")]
    sparse, conflicts = sp.csr_array(weights), sp.csr_array(against.astype(np.int8))
    found = seed_sides(
        order,
        own,
        *(conflicts.indptr, conflicts.indices),
        *(sparse.indptr, sparse.indices, sparse.data),
        sizes,
    )
    np.testing.assert_array_equal(found, _slow_sides(order, own, against, weights, sizes))


def test_a_cluster_is_split_where_it_is_thin() -> None:
    assert _label(None) == [0, 0, 0, 0, 0, 0, 0, 0, -1]
    assert _label(_pairs(different=[(0, 7)])) == [0, 0, 0, 0, 1, 1, 1, 1, -1]


def test_who_is_the_same_leaves_the_noise() -> None:
    assert _label(_pairs(same=[(8, 5)])) == [0] * 9
    assert _label(_pairs(same=[(8, 5)], different=[(8, 0)])) == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_pair_across_two_clusters_counts_as_mended() -> None:
    blocks = sp.csr_array(np.kron(np.eye(2), np.ones((4, 4))).astype(np.float32))
    methods = SimpleNamespace(clusterer=find("clusterers", "dbscan").Options(min_samples=3), refiners=())
    found = label(Known(blocks, _pairs(same=[(1, 6), (0, 2)])), methods)
    assert found.clusters[1] == found.clusters[6]
    assert found.figures["pairs_mended"] == 1


def test_who_nothing_leads_to_goes_to_the_largest() -> None:
    rules = constraints.Rules.of(_pairs(same=[(1, 2), (2, 3)], different=[(0, 1)]), 5)
    nothing = sp.csr_array(np.eye(5, dtype=np.float32))
    assert rules.mend_clusters(np.zeros(5, dtype=np.int64), nothing).tolist() == [0, 1, 1, 1, 1]


def test_noise_that_is_the_same_is_a_cluster() -> None:
    matrix = sp.csr_array(np.eye(4, dtype=np.float32))
    methods = SimpleNamespace(clusterer=find("clusterers", "dbscan").Options(min_samples=3), refiners=())
    found = label(Known(matrix, _pairs(same=[(1, 3)])), methods)
    assert found.clusters.tolist() == [-1, 0, -1, 0]
    assert found.figures["pairs_mended"] == 1


def test_three_people_in_one_cluster() -> None:
    """Who differs from two that do not differ leaves them together."""
    matrix = sp.csr_array(np.full((6, 6), 0.9, dtype=np.float32))
    pairs = _pairs(different=[(0, 1), (0, 2)])
    clusters = label(Known(matrix, pairs), _methods(0)).clusters
    assert clusters[1] == clusters[2] != clusters[0]
    pairs = _pairs(different=[(0, 1), (0, 2), (1, 2)])
    assert len(set(label(Known(matrix, pairs), _methods(0)).clusters[:3].tolist())) == 3


def test_clusters_that_mix_people_join_no_crowd() -> None:
    """A cluster of two groups is joined with the one that has more of it; the other's part leaves it."""
    groups = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    matrix = np.eye(9, dtype=np.float32)
    for group in groups:
        matrix[np.ix_(group, group)] = 0.9
    found = _label(_pairs(same=[(0, 3), (1, 3), (2, 6)]), sp.csr_array(matrix))
    assert found == [0, 0, 1, 0, 0, 0, 1, 1, 1]
    assert _label(_pairs(same=[(0, 3), (0, 6)]), sp.csr_array(matrix)) == [0] * 9


def test_the_similarity_is_cut_between_those_who_differ() -> None:
    told = constraints.write_in(_two_blobs(), _pairs(same=[(8, 5)], different=[(8, 4), (0, 1)])).toarray()
    untouched = np.ones((9, 9), dtype=bool)
    for a, b in ((4, 5), (0, 1), (4, 8)):  # 5 is the same as 8, which differs from 4
        untouched[a, b] = untouched[b, a] = False
    np.testing.assert_array_equal(told, np.where(untouched, _two_blobs().toarray(), 0))


def test_known_evidence_cuts_its_similarity() -> None:
    features = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    distance = find("distances", "jaccard").Options(k1=4, k2=2)
    plain = KnownEvidence(features, distance, 4).similarity
    rows, columns = sp.triu(plain, 1).nonzero()
    pair = int(rows[0]), int(columns[0])
    told = KnownEvidence(features, distance, 4, pairs=_pairs(different=[pair])).similarity
    assert plain[pair] > 0
    assert told[pair] == told[pair[::-1]] == 0
    assert (abs(told - plain) > 0).sum() == 2


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        (_pairs(same=[(0, 1), (1, 2)], different=[(2, 0)]), "images 2 and 0 are said to be different"),
        (_pairs(different=[(3, 3)]), "contradict"),
        (_pairs(same=[(0, 9)]), "images 0 to 8"),
        (
            Pairs(np.zeros((2, 3), dtype=np.int64), NONE),
            r"pairs.same must be whole numbers of shape \(m, 2\)",
        ),
        (Pairs(NONE, np.zeros((2, 2))), "pairs.different must be whole numbers"),
    ],
)
def test_pairs_that_cannot_be_obeyed(pairs: Pairs, word: str) -> None:
    with pytest.raises(InputError, match=word):
        label(Known(_two_blobs(), pairs), _methods(0))
