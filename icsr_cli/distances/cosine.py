"""The cosine of the nearest neighbours: for few images each, as one camera's of one person."""

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import as_numpy
from icsr_cli.types import Evidence


class Options(choices.Options):
    """``k``: the neighbours of an image, itself included, that count; other pairs are not alike at all."""

    k: int = Field(40, ge=1)

    @property
    def neighbours(self) -> int:
        """As many as count."""
        return self.k


def similarity(evidence: Evidence, options: Options) -> sp.csr_array:
    """Give the cosine where one of two images is among the ``k`` nearest of the other, sparse (n, n).

    float32, symmetric, above 0 and at most 1; what is at a right angle or farther apart is 0, not stored.
    """
    near = evidence.neighbours(options.k)
    indices, cosines = as_numpy(near.indices), 1 - as_numpy(near.distances)
    n, k = indices.shape
    stored = cosines >= max(evidence.least, np.finfo(np.float32).tiny)
    values = np.clip(cosines, 0, 1)[stored].astype(np.float32)
    rows = np.repeat(np.arange(n), k)[stored.ravel()]
    found = sp.csr_array((values, (rows, indices[stored])), shape=(n, n))
    return sp.csr_array(found.maximum(found.T))
