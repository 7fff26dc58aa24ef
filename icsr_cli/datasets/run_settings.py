"""What a data set says of the settings of a run on it."""

from collections.abc import Mapping
from typing import Any, Final

from icsr_cli.datasets.published import available, benchmark

#: Own crops: both stages train one network, so that the second can begin from the first.
_FOLDER: Final[dict[str, Any]] = {"method": "camera-aware", "global": {"model": {"arch": "resnet50"}}}
_STAGE: Final[dict[str, Any]] = {
    "model": {"arch": "resnet_small", "stripes": 4, "weights": "none"},
    "iters": 40,
    "augmentation": {"pad": 3, "border": "edge"},
    "distance": {"k1": 20},
}
#: Rendered data: a small network from random weights, minutes on two CPU cores.
_SYNTHETIC: Final[dict[str, Any]] = {
    "method": "camera-aware",
    "image": {"height": 64, "width": 32},
    "cam": {**_STAGE, "network": "shared", "epochs": 12, "optimizer": {"lr": 1e-3, "step_size": 9}},
    "global": {**_STAGE, "epochs": 26, "optimizer": {"lr": 1e-3, "step_size": 18}},
    # Where a cam stage comes first, the global stage begins from its network, and both share the steps.
    "methods": {
        "icsr": {"global": {"model": {"weights": "cam"}, "epochs": 14, "optimizer": {"step_size": 10}}},
    },
}


def settings(name: str, family: str | None = None) -> Mapping[str, Any]:
    """Give the settings of a run that differ for a data set: its own, else those of its ``family``.

    ``family``: ``synthetic``, or ``folder`` for one's own crops (the default).
    """
    if name in available():
        return benchmark(name).run_settings
    return _SYNTHETIC if "synthetic" in (name, family) else _FOLDER
