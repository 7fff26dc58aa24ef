"""A few images of one cluster under one camera after the other: what a memory of camera proxies learns from.

Source: Wang et al., "Camera-aware Proxies for Unsupervised Person Re-Identification", AAAI 2021,
arXiv 2012.10674, section "Implementation details".
"""

from typing import Any

import numpy as np

from icsr_cli import choices
from icsr_cli.samplers.identity import identity_batches
from icsr_cli.types import Epoch, IntArray


class Options(choices.Options):
    """There is nothing to choose."""


def batches(epoch: Epoch, options: Options, **drawn: Any) -> IntArray:
    """Draw ``num_instances`` images of each pair of cluster and camera: int64 (iters, batch_size).

    ``drawn``: batch_size, num_instances, iters and generator, as ``identity_batches`` takes them.
    """
    labels = epoch.labels.labels
    pairs = labels * (int(epoch.cameras.max(initial=0)) + 1) + epoch.cameras
    alike = np.zeros_like(pairs)  # one camera: the others of a pair are all under it
    return identity_batches(np.where(labels >= 0, pairs, -1), alike, **drawn)
