"""Are cameras apart because of the cameras, or because of the people who walk there? Asked of features alone.

The mean of a camera's features holds what its light and its background do to every image, and how the people
there look. Normalisation per camera takes off both; where the second is much, it takes off what tells people
apart. Images of one person under two cameras differ by the first alone. So pairs of images that likely show
one person are found where the cameras' means say nothing, in the complement of the space these span, and
their difference is held against the difference of the means.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from icsr_cli.checks import as_numpy, in_kind, whole_numbers
from icsr_cli.distances.camera_jaccard import nearest_by_camera
from icsr_cli.distances.features import check_features, unit_rows

#: Images that one person has under one camera, about: means are as uncertain as of so many fewer images.
_IMAGES_PER_PERSON: Final = 5
#: Below this share of the pairs' own difference, normalisation is left out.
_LEAST_SHARE: Final = 0.5
#: With fewer pairs nothing is concluded.
_LEAST_PAIRS: Final = 10


@dataclass(frozen=True)
class CameraEffect:
    """What was found: ``share`` of the cameras' difference that one person shows too, by ``pairs`` of images.

    Near 1 the cameras themselves are apart, near 0 their people. Where nothing can be concluded (one camera,
    too few pairs, means that differ by no more than chance) the share is 1.
    """

    share: float
    pairs: int

    @property
    def mode(self) -> Literal["none", "full"]:
        """How to normalise."""
        return "full" if self.share >= _LEAST_SHARE else "none"


def camera_effect(features: Any, cameras: Any) -> CameraEffect:
    """Measure which share of the difference between cameras one and the same person shows.

    ``features`` (n, d): numbers, numpy or torch. ``cameras``: int (n,), from 0.
    Raises InputError where shapes or values do not fit.
    """
    vectors = unit_rows(check_features(features))
    x = as_numpy(vectors)
    of_image = np.unique(whole_numbers("cameras", cameras, len(x), low=0), return_inverse=True)[1]
    count = np.bincount(of_image)
    means = np.stack([x[of_image == camera].mean(axis=0) for camera in range(len(count))])
    centred = x - means[of_image]
    spread = np.bincount(of_image, (centred * centred).sum(axis=1)) / count
    rest = _complement(centred, means)
    if rest is None:
        return CameraEffect(1.0, 0)
    # The one search over all pairs happens where the features are.
    nearest = nearest_by_camera(in_kind(rest, vectors), of_image, 1, 1)[1][:, 0]
    one, other = _likely_pairs(rest, nearest)
    apart = means[of_image[other]] - means[of_image[one]]
    seen = float(((x[other] - x[one]) * apart).sum())
    chance = spread / (count / _IMAGES_PER_PERSON)
    real = float((apart * apart).sum() - (chance[of_image[one]] + chance[of_image[other]]).sum())
    if len(one) < _LEAST_PAIRS or real <= 0:
        return CameraEffect(1.0, len(one))
    return CameraEffect(seen / real, len(one))


def _complement(centred: Any, means: Any) -> Any | None:
    """Give unit features without what the means span, float32 (n, d); None where nothing would be left."""
    _, sizes, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    spanned = directions[sizes > 1e-4 * sizes[0]] if sizes[0] > 1e-6 else directions[:0]
    if not 0 < len(spanned) < means.shape[1]:
        return None
    rest = centred - (centred @ spanned.T) @ spanned
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    return rest / np.maximum(length, np.float32(1e-12))


def _likely_pairs(rest: Any, nearest: Any) -> tuple[Any, Any]:
    """Give the closer half of all pairs who are each other's ``nearest`` under the other cameras."""
    rows = np.arange(len(rest))
    one = rows[(nearest[nearest] == rows) & (rows < nearest)]
    alike = (rest[one] * rest[nearest[one]]).sum(axis=1)
    one = one[np.argsort(-alike, kind="stable")[: (len(one) + 1) // 2]]
    return one, nearest[one]
