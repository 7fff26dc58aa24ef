"""Which pairs a person is asked: those between what nearly merged and within what nearly split."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.labelling import questions
from icsr_cli.labelling.questions import choose, halves
from icsr_cli.types import Pairs

NONE = np.empty((0, 2), dtype=np.int64)


def _similarity(n: int, *blocks: tuple[Any, Any, float]) -> sp.csr_array:
    matrix = np.zeros((n, n), dtype=np.float32)
    for rows, columns, value in blocks:
        matrix[np.ix_(list(rows), list(columns))] = value
        matrix[np.ix_(list(columns), list(rows))] = value
    np.fill_diagonal(matrix, 1)
    return sp.csr_array(matrix)


#: Four tight clusters of three; the first and second nearly merged, the second and third a little less.
LABELS = np.repeat(np.arange(4), 3)
CAMERAS = np.tile([0, 1, 2], 4)
TIGHT = [(range(3 * c, 3 * c + 3), range(3 * c, 3 * c + 3), 0.8) for c in range(4)]
NEAR = _similarity(12, *TIGHT, (range(3), range(3, 6), 0.6), (range(3, 6), range(6, 9), 0.4))


def _asked(found: questions.Questions) -> list[tuple[str, int, int]]:
    nodes = LABELS[np.column_stack([found.first, found.second])]
    return [
        (str(kind), *ends) for kind, ends in zip(found.kinds, np.sort(nodes, axis=1).tolist(), strict=True)
    ]


def test_what_nearly_merged_comes_first() -> None:
    found = choose(LABELS, NEAR, CAMERAS, 2)
    assert _asked(found) == [("join", 0, 1), ("join", 1, 2)]
    assert (CAMERAS[found.first] != CAMERAS[found.second]).all()
    assert found.worth[0] > found.worth[1] > 0
    assert sorted(found.images(0, 0).tolist() + found.images(0, 1).tolist()) == list(range(6))


def test_what_follows_from_others_is_not_asked() -> None:
    """Of three clusters that are like each other two pairs say all."""
    alike = _similarity(
        12,
        *TIGHT,
        (range(3), range(3, 6), 0.6),
        (range(3, 6), range(6, 9), 0.5),
        (range(3), range(6, 9), 0.4),
    )
    joins = [one for one in _asked(choose(LABELS, alike, CAMERAS, 99)) if one[0] == "join"]
    assert joins == [("join", 0, 1), ("join", 1, 2)]


def test_what_is_known_is_not_asked() -> None:
    doubt = Pairs(NONE, NONE, np.array([[4, 1]]))
    assert ("join", 0, 1) in _asked(choose(LABELS, NEAR, CAMERAS, 99))
    assert ("join", 0, 1) not in _asked(choose(LABELS, NEAR, CAMERAS, 99, doubt))
    known = Pairs(NONE, np.array([[1, 4]]))
    assert ("join", 0, 1) not in _asked(choose(LABELS, NEAR, CAMERAS, 99, known))
    known = Pairs(np.array([[1, 4]]), NONE)
    assert ("join", 0, 1) not in _asked(choose(LABELS, NEAR, CAMERAS, 99, known))
    # By way of an image of the third cluster.
    known = Pairs(np.array([[1, 7]]), np.array([[7, 4]]))
    assert ("join", 0, 1) not in _asked(choose(LABELS, NEAR, CAMERAS, 99, known))


def test_across_cameras_comes_first() -> None:
    """Two pairs of clusters are as alike; one pair is of one camera alone."""
    similarity = _similarity(12, *TIGHT, (range(3), range(3, 6), 0.5), (range(6, 9), range(9, 12), 0.5))
    cameras = np.array([0] * 6 + [0] * 3 + [1] * 3)
    asked = [one for one in _asked(choose(LABELS, similarity, cameras, 99)) if one[0] == "join"]
    assert asked == [("join", 2, 3), ("join", 0, 1)]
    nobody = choose(LABELS, similarity, None, 99)
    assert nobody.worth[0] == nobody.worth[1]


def test_a_cluster_that_nearly_split() -> None:
    """One cluster of two people, five and three images; the halves are found, and their middles asked."""
    similarity = _similarity(12, (range(5), range(5), 0.9), (range(5, 8), range(5, 8), 0.9), ([4], [5], 0.5))
    labels = np.array([0] * 8 + [1, 1, 1, 1])
    similarity = sp.csr_array(similarity.maximum(_similarity(12, (range(8, 12), range(8, 12), 0.9))))
    found = halves(similarity, labels)
    assert len(set(found[:5])) == len(set(found[5:8])) == 1
    assert found[0] != found[7]
    asked = choose(labels, similarity, np.tile([0, 1], 6), 1)
    assert asked.kinds.tolist() == ["split"]
    sides = sorted(asked.images(0, side).tolist() for side in (0, 1))
    assert sides == [[0, 1, 2, 3, 4], [5, 6, 7]]
    doubt = choose(labels, similarity, np.tile([0, 1], 6), 99, Pairs(NONE, NONE, np.array([[7, 0]])))
    assert sides not in [
        sorted(doubt.images(one, side).tolist() for side in (0, 1)) for one in range(len(doubt))
    ]
    known = Pairs(np.array([[0, 7]]), NONE)
    again = choose(labels, similarity, np.tile([0, 1], 6), 99, known)
    assert not ({*again.first, *again.second} <= set(range(8)) and len(again) == 1)


def test_halves_that_share_nothing_are_asked() -> None:
    similarity = _similarity(8, (range(4), range(4), 0.9), (range(4, 8), range(4, 8), 0.9))
    found = choose(np.zeros(8, dtype=np.int64), similarity, np.tile([0, 1], 4), 5)
    assert found.kinds.tolist() == ["split"]
    assert sorted(found.images(0, side).tolist() for side in (0, 1)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_noise_counts_as_clusters_of_one() -> None:
    labels = np.array([0, 0, 0, -1, -1])
    similarity = _similarity(5, (range(3), range(3), 0.8), (range(3), [3], 0.5))
    found = choose(labels, similarity, np.array([0, 0, 1, 1, 1]), 5)
    assert found.kinds[0] == "join"
    assert 3 in (found.first[0], found.second[0])
    assert 4 not in found.first.tolist() + found.second.tolist(), "it is like nobody"


def test_nothing_to_ask() -> None:
    alone = _similarity(3)
    assert len(choose(np.array([-1, -1, -1]), alone, None, 9)) == 0
    assert len(choose(np.array([0, 1, -1]), alone, np.array([0, 1, 0]), 9)) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 24))
def test_sides_as_they_are_counted_one_by_one(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    upper = np.triu(generator.random((n, n)) * (generator.random((n, n)) < 0.4), 1)
    matrix = (upper + upper.T + np.eye(n)).astype(np.float32)
    numbers, cameras = generator.integers(0, 5, n), generator.integers(0, 3, n)
    found = questions._Sides.of(sp.csr_array(matrix), numbers, cameras)
    expected = {}
    for low, high in combinations(range(5), 2):
        pairs = [(a, b) for a in np.flatnonzero(numbers == low) for b in np.flatnonzero(numbers == high)]
        if not any(matrix[pair] > 0 for pair in pairs):
            continue
        across = [pair for pair in pairs if cameras[pair[0]] != cameras[pair[1]]]
        mean = np.mean([matrix[pair] for pair in (across or pairs)])
        expected[low, high] = (mean, len(across) + 1e-3 * (len(pairs) - len(across)))
    assert [tuple(ends) for ends in found.ends.tolist()] == list(expected)
    np.testing.assert_allclose(
        np.column_stack([found.mean, found.pairs]), list(expected.values()) or NONE, rtol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 30))
def test_questions_are_what_they_say(seed: int, n: int) -> None:
    """Each side's speaker is of that side, questions come once, worth falls, and answers fit together."""
    generator = np.random.default_rng(seed)
    upper = np.triu(generator.random((n, n)) * (generator.random((n, n)) < 0.3), 1)
    similarity = sp.csr_array((upper + upper.T + np.eye(n)).astype(np.float32))
    labels, cameras = generator.integers(-1, 6, n), generator.integers(0, 3, n)
    found = choose(labels, similarity, cameras, n)
    assert (np.diff(found.worth) <= 1e-9).all()
    assert len(
        {tuple(ends) for ends in zip(found.first.tolist(), found.second.tolist(), strict=True)}
    ) == len(found)
    for number in range(len(found)):
        sides = [found.images(number, side) for side in (0, 1)]
        assert found.first[number] in sides[0]
        assert found.second[number] in sides[1]
        assert not set(sides[0]) & set(sides[1])
        cross = set(cameras[sides[0]]) | set(cameras[sides[1]])
        if len(cross) > 1 and not (cameras[sides[0]] == cameras[sides[1]][0]).all():
            assert cameras[found.first[number]] != cameras[found.second[number]]
        one = labels[found.first[number]] == labels[found.second[number]] >= 0
        assert one == (found.kinds[number] == "split")


def test_likely_is_a_share() -> None:
    found = questions._likely(np.array([0, 0.2, 0.4, 0.9]), 0.4)
    assert found.tolist() == [0, pytest.approx(0.125), 1, 1]
    assert questions._likely(np.array([0.5]), 0.0).tolist() == [0]
