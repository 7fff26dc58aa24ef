from __future__ import annotations

import numpy as np
import torch
from torch_threads import threads

from icsr_cli.metrics import rank, rerank


def test_measuring_leaves_the_number_of_threads_alone() -> None:
    """numba's OpenMP layer would set it to all cores, for training too."""
    rng = np.random.default_rng(0)
    query, gallery = (rng.standard_normal((n, 8)).astype(np.float32) for n in (6, 20))
    ids, cameras = np.arange(26) % 5, np.arange(26) % 3
    with threads(1):
        rank(query, gallery, ids[:6], ids[6:], cameras[:6], cameras[6:])
        rerank(query, gallery, k1=5, k2=2)
        assert torch.get_num_threads() == 1
