import numpy as np
import pytest

from icsr_cli.metrics import thresholds


def world(seed, people=20, d=8):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, d))

    def half(n):
        ids = rng.integers(0, people, n)
        x = centres[ids] + 0.6 * rng.standard_normal((n, d))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), ids, rng.integers(0, 3, n)

    return half(40), half(150)


@pytest.mark.parametrize("seed", range(3))
def test_against_all_pairs(seed):
    (query, query_ids, query_cameras), (gallery, gallery_ids, gallery_cameras) = world(seed)
    gallery_ids[:10] = -1
    query_ids[:4] = -1  # they may show anybody
    found = thresholds(query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras)
    distance = np.linalg.norm(query[:, None].astype(float) - gallery[None], axis=2)
    same = query_ids[:, None] == gallery_ids
    known = (gallery_ids != -1) & (query_ids[:, None] != -1)
    true = distance[same & (query_cameras[:, None] != gallery_cameras) & known]
    false = distance[~same & known]
    assert [one.name for one in found] == ["1 % false", "0.1 % false", "best F1"]
    for one in found:
        # Distances are counted in steps of 2 / 2**15.
        assert one.true_rate == pytest.approx((true < one.distance).mean(), abs=2 / len(true))
        assert one.false_rate == pytest.approx((false < one.distance).mean(), abs=2 / len(false))
    for one, rate in zip(found, (0.01, 0.001), strict=False):
        assert one.distance == pytest.approx(np.quantile(false, rate, method="lower"), abs=2e-2)
        assert one.false_rate <= rate
    every = np.sort(np.concatenate([true, false]))
    f1 = [2 * (true <= t).sum() / ((true <= t).sum() + (false <= t).sum() + len(true)) for t in every]
    assert found[2].f1 == pytest.approx(max(f1), abs=5e-3)


def test_the_ends_of_the_scale():
    """Images of two people that are one image, and the two ends of the sphere."""
    alike, beside = np.array([[1.0, 0], [1, 0]]), np.array([[1, 0], [0.8, 0.6]])
    strict = thresholds(alike, beside, *map(np.array, ([1, 2], [9, 1], [0, 0], [1, 1])))[0]
    assert (strict.distance, strict.true_rate, strict.false_rate) == (0, 0, 0)
    both = np.array([[-1.0, 0], [1, 0]])
    far = thresholds(alike[:1], both, *map(np.array, ([1], [1, 2], [0], [1, 1])))[2]
    assert (far.distance, far.true_rate, far.false_rate, far.f1) == (2, 1, 1, pytest.approx(2 / 3))
    near = thresholds(alike[:1], both, *map(np.array, ([1], [2, 1], [0], [1, 1])))[0]
    assert (near.distance, near.true_rate, near.false_rate) == (2 - 2 / 2**15, 1, 0)


def test_blocks_and_nothing_to_tell_apart(monkeypatch):
    (query, query_ids, query_cameras), (gallery, gallery_ids, gallery_cameras) = world(9)
    arguments = (query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras)
    whole = thresholds(*arguments)
    monkeypatch.setattr("icsr_cli.metrics.match_thresholds._BLOCK", 7 * len(gallery))
    assert thresholds(*arguments) == whole
    half = [of.astype(np.float16) for of in (query, gallery)]
    assert thresholds(*half, *arguments[2:]) == thresholds(*(of.astype(float) for of in half), *arguments[2:])
    assert (
        thresholds(query, gallery, query_ids, np.full_like(gallery_ids, 99), query_cameras, gallery_cameras)
        == []
    )
    assert thresholds(*(part[:0] for part in arguments)) == []
