import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.clustering import cohesion
from icsr_cli.errors import InputError


def slow_cohesion(similarity, labels):
    """Image by image, on the dense matrix."""
    found = np.full(len(labels), np.nan)
    for image, label in enumerate(labels):
        others = [other for other, its in enumerate(labels) if its == label and other != image]
        if label != -1 and others:
            found[image] = np.mean([similarity[image, other] for other in others])
    return found


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 50), groups=st.integers(1, 20), density=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_against_counting_by_hand(n, groups, density, seed):
    """Noise, clusters of one image, numbers with gaps, and stored diagonals of any value included."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    similarity = (upper + upper.T + np.diag(rng.integers(0, 2, n))).astype(np.float32)
    labels = rng.choice(np.r_[-1, rng.permutation(3 * groups)[:groups]], n)
    found = cohesion(sp.csr_array(similarity), labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_cohesion(similarity, labels), rtol=1e-5)
    np.testing.assert_array_equal(found, cohesion(similarity, labels))


def test_three_images_by_hand():
    similarity = np.array([[1, 0.5, 0, 0.9], [0.5, 1, 0.25, 0], [0, 0.25, 1, 0], [0.9, 0, 0, 1]])
    assert cohesion(similarity, np.array([7, 7, 7, 2]))[:3].tolist() == [0.25, 0.375, 0.125]


def test_the_diagonal_does_not_count():
    """Stored or not, an image is no witness of its own cluster."""
    labels = np.array([0, 0, 1, 1])
    assert cohesion(sp.eye_array(4), labels).tolist() == [0, 0, 0, 0]
    copies = np.kron(np.eye(2), np.ones((2, 2)))
    assert cohesion(copies, labels).tolist() == [1, 1, 1, 1]
    assert cohesion(copies - np.eye(4), labels).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("labels", [[-1, -1, -1, -1], [0, 1, 2, 3], [5, -1, -1, 0]])
def test_noise_and_images_alone_have_none(labels):
    assert np.isnan(cohesion(np.ones((4, 4)), np.array(labels))).all()


def test_nothing_stored():
    assert cohesion(sp.csr_array((3, 3), dtype=np.float32), np.array([0, 0, -1]))[:2].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("similarity", "labels", "message"),
    [
        (sp.eye_array(4), [0, 1, 0], r"labels must have shape \(4,\), as many as images, got \(3,\)"),
        (sp.eye_array(4), [0, 1, 0, -2], "labels must be at least -1, got -2"),
        (np.triu(np.ones((3, 3))), [0, 0, 0], "similarity must be symmetric"),
        (np.ones((2, 2)) * 2, [0, 0], "similarity must lie in 0 to 1"),
        (np.ones((0, 0)), np.zeros(0, int), r"shape \(n, n\) with n >= 1"),
    ],
)
def test_bad_input(similarity, labels, message):
    with pytest.raises(InputError, match=message):
        cohesion(similarity, np.array(labels))
