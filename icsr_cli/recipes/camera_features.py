"""Features with BatchNorm by the statistics of each camera's own images (AdaBN, arXiv 1603.04779).

Training keeps one set of running statistics for all cameras, of batches in which they are mixed. A camera of
another light is then off the mean in every layer, by which its images look alike.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from icsr_cli.models.batch_norm import statistics_of_the_batch
from icsr_cli.pixels import upload
from icsr_cli.types import IntArray

#: Images in one forward pass, about. No setting: it would change what is learnt.
BATCH = 256


def extract_by_camera(
    network: nn.Module, cameras: IntArray, seed: int, embed: Callable[[IntArray, int], Tensor]
) -> Tensor:
    """Embed images, each normalised as its camera's are: float32 (n, d), in their order.

    The images of a camera are drawn into batches of nearly one size, as near to 256 as their number allows
    (384 at most), and BatchNorm takes the statistics of the batch (``statistics_of_the_batch``).

    Args:
        network: what ``embed`` runs.
        cameras: int64 (n,), of each image.
        seed: of the draw.
        embed: gives features (m, d) of the images at ``rows`` (m,), so many of them in each forward pass.
    """
    draw = np.random.default_rng(seed)
    parts = [draw.permutation(np.flatnonzero(cameras == camera)) for camera in np.unique(cameras)]
    with statistics_of_the_batch(network):
        drawn = torch.cat([embed(rows, batch_size(len(rows))) for rows in parts])
    features = torch.empty_like(drawn)
    features[upload(torch.from_numpy(np.concatenate(parts)), drawn.device)] = drawn
    return features


def batch_size(images: int) -> int:
    """Give the size of so many equal batches that they are of about 256 images."""
    return math.ceil(images / max(1, round(images / BATCH)))
