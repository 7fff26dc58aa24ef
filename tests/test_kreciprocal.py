from itertools import pairwise

import numpy as np
import pytest
from torch_threads import threads

from icsr_cli.kreciprocal import expanded, inverted, overlap, reciprocal_sets

#: Neighbours of five images, nearest first: 0, 1, 2 know each other, 3 joins 4 alone.
RANKS = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 4, 0], [4, 3, 1]])


def rows_of(starts, columns):
    return [columns[low:high].tolist() for low, high in pairwise(starts)]


def dense(starts, columns, values):
    matrix = np.zeros((len(starts) - 1,) * 2, dtype=np.float32)
    for row in range(len(matrix)):
        part = slice(starts[row], starts[row + 1])
        matrix[row, columns[part]] = values[part]
    return matrix


def random_rows(n, seed):
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((n, n)) < 0.15, rng.random((n, n)), 0).astype(np.float32)
    matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
    filled = matrix > 0
    return matrix, (np.append(0, filled.sum(axis=1).cumsum()), np.nonzero(filled)[1], matrix[filled])


def test_a_set_holds_those_who_know_it_back():
    assert rows_of(*reciprocal_sets(RANKS, half=1)) == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4], [3, 4]]


@pytest.mark.parametrize(
    ("third", "grown"),
    [
        # R(1, 4) = {1, 0, 2, 9} has three of its four in R(0, 4) = {0, 1, 2}: more than 2/3.
        (2, [0, 1, 2, 9]),
        # Without 2 knowing 1, R(1, 4) = {1, 0, 9} has two of three: 2/3 is not more.
        (8, [0, 1, 2]),
    ],
)
def test_a_set_grows_by_more_than_two_thirds(third, grown):
    ranks = np.tile(np.arange(10)[:, None], (1, 4))
    ranks[0], ranks[1], ranks[2], ranks[9] = [0, 1, 2, 5], [1, 0, third, 9], [2, 0, 1, 6], [9, 1, 7, 6]
    assert rows_of(*reciprocal_sets(ranks, half=4))[0] == grown


def test_half_sets_are_no_longer_than_the_lists():
    few, many = reciprocal_sets(RANKS, half=3), reciprocal_sets(RANKS, half=9)
    assert rows_of(*few) == rows_of(*many)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_expansion_and_overlap_against_whole_matrices(seed, count):
    matrix, rows = random_rows(70, seed)
    ranks = np.random.default_rng(seed).permuted(np.tile(np.arange(70), (70, 1)), axis=1)[:, :4]
    with threads(count):
        means = expanded(ranks, rows)
        assert expanded(ranks[:, :1], rows) is rows
    np.testing.assert_allclose(dense(*means), matrix[ranks].mean(axis=1), atol=1e-6)
    counts, found, similarities = overlap(means, inverted(means), 10, 40)
    shared = np.minimum(dense(*means)[:, None], dense(*means)[None]).sum(axis=2)
    expected = np.triu(shared / (2 - shared), 1)[10:40]
    result = np.zeros_like(expected)
    result[np.repeat(np.arange(30), counts), found] = similarities
    np.testing.assert_allclose(result, expected, atol=1e-6)
