from __future__ import annotations

import numpy as np
import torch

from icsr_cli.samplers import proxy
from icsr_cli.types import Epoch, Labels


def test_a_row_of_images_is_of_one_cluster_under_one_camera() -> None:
    rng = np.random.default_rng(0)
    labels, cameras = rng.integers(-1, 6, 300), rng.integers(0, 4, 300)
    epoch = Epoch(number=1, features=torch.zeros(300, 2), labels=Labels.of(labels), cameras=cameras)
    drawn = proxy.batches(
        epoch, proxy.Options(), batch_size=16, num_instances=4, iters=30, generator=np.random.default_rng(1)
    )
    assert drawn.shape == (30, 16)
    assert (labels[drawn] >= 0).all()
    rows = drawn.reshape(-1, 4)
    for facts in (labels, cameras):
        assert (facts[rows] == facts[rows[:, :1]]).all()
    for row in rows.tolist():
        there = int(((labels == labels[row[0]]) & (cameras == cameras[row[0]])).sum())
        assert len(set(row)) == 4 or there < 4  # none twice where there are enough
    pairs = {(labels[row[0]], cameras[row[0]]) for row in rows.tolist()}
    assert len(pairs) == 6 * 4  # every pair has its turn
