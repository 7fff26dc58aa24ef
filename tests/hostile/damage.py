"""What a disk, a network or a spiteful hand makes of a file."""

from __future__ import annotations

import numpy as np


def damaged(content: bytes, seed: int) -> bytes:
    """Give ``content`` with a bit flipped, a piece cut off, overwritten, or put in twice."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    kind = seed % 4
    if kind == 0:
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        piece = rng.bytes(min(16, len(data) - place))
        data[place : place + len(piece)] = piece
    else:
        data[place:place] = data[place : place + 64]
    return bytes(data)
