import numpy as np
import pytest
import torch

from icsr_cli.distances.cosine import Options
from icsr_cli.labelling import KnownEvidence


@pytest.mark.parametrize("k", [1, 7, 40, 90])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_against_the_dense_matrix(k, kind):
    features = np.random.default_rng(k).standard_normal((60, 5), dtype=np.float32)
    found = KnownEvidence(kind(features), Options(k=k), most=k).similarity
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 1)
    near = np.argsort(np.argsort(-cosines, axis=1), axis=1) < k
    expected = np.where(near | near.T, np.clip(cosines, 0, 1), 0)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-6)
    assert found.dtype == np.float32
    assert (found != found.T).nnz == 0


def test_pairs_that_nobody_reads_are_not_stored():
    features = np.random.default_rng(0).standard_normal((60, 5), dtype=np.float32)
    whole, lean = (
        KnownEvidence(features, Options(), most=40, least=least).similarity for least in (0.0, 0.8)
    )
    np.testing.assert_array_equal(lean.toarray(), np.where(whole.toarray() >= 0.8, whole.toarray(), 0))
    assert lean.nnz < whole.nnz
