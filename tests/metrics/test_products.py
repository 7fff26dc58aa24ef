from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch_threads import threads

from icsr_cli.metrics import products, rank, rerank


@pytest.fixture(autouse=True)
def no_memory_of_other_tests() -> Iterator[None]:
    products._numpy_is_slow.cache_clear()
    yield
    products._numpy_is_slow.cache_clear()


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if products._ONEDNN is None:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_numpy_is_slow", lambda: True)


def random_matrix(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (3, 1025, 7), (17, 2100, 33), (0, 5, 4), (5, 0, 4)])
def test_products_of_onednn_are_those_of_numpy(onednn: None, m: int, n: int, d: int) -> None:
    a, b = random_matrix(1, m, d), random_matrix(2, n, d)
    found = products.multiply(a, b, np.full((m, n), np.nan, dtype=np.float32))
    np.testing.assert_allclose(found, a.astype(np.float64) @ b.T.astype(np.float64), atol=2e-5)


def test_measures_are_the_same_by_either_library(monkeypatch: pytest.MonkeyPatch) -> None:
    if products._ONEDNN is None:
        pytest.skip("this torch has no oneDNN")
    query, gallery = random_matrix(3, 70, 16), random_matrix(4, 1200, 16)
    ids, cameras = np.arange(1270) % 50, np.arange(1270) % 3
    found = []
    for slow in (False, True):
        monkeypatch.setattr(products, "_numpy_is_slow", lambda slow=slow: slow)
        with threads(2):
            ranking = rank(query, gallery, ids[:70], ids[70:], cameras[:70], cameras[70:])
            found.append((ranking.mAP, rerank(query, gallery, k1=10)))
            assert torch.get_num_threads() == 2
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)  # two that are nearly as far may change places
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)


@pytest.mark.parametrize(
    ("capability", "library", "architecture", "slow"),
    [
        ("AVX512", "numpy.libs/libopenblas.so", "Haswell", True),
        ("AVX512", "numpy.libs/libopenblas.so", "Zen", True),
        ("AVX512", "numpy.libs/libopenblas.so", "SkylakeX", False),
        ("AVX512", "scipy.libs/libopenblas.so", "Haswell", False),
        ("AVX512", "numpy.libs/libmkl.so", None, False),
        ("AVX2", "numpy.libs/libopenblas.so", "Haswell", False),
    ],
)
def test_onednn_multiplies_where_numpy_does_not_know_the_processor(
    monkeypatch: pytest.MonkeyPatch, capability: str, library: str, architecture: str | None, slow: bool
) -> None:
    about = {"filepath": f"/lib/site-packages/{library}"}
    about |= {"architecture": architecture} if architecture else {}
    monkeypatch.setattr(products, "threadpool_info", lambda: [about])
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products, "_ONEDNN", object())
    assert products._numpy_is_slow() is slow
    monkeypatch.setattr(products, "_ONEDNN", None)
    products._numpy_is_slow.cache_clear()
    assert not products._numpy_is_slow()
