"""Rendered data, which lies in the layout of Market-1501."""

from typing import Any, Final

_STAGE: Final[dict[str, Any]] = {
    "model": {"arch": "resnet_small", "stripes": 4, "weights": "none"},
    "iters": 40,
    "augmentation": {"pad": 3, "border": "edge"},
    "distance": {"k1": 20},
}

#: A small network from random weights: minutes on two CPU cores.
SETTINGS: Final[dict[str, Any]] = {
    "method": "camera-aware",
    "image": {"height": 64, "width": 32},
    "cam": {**_STAGE, "network": "shared", "epochs": 12, "optimizer": {"lr": 1e-3, "step_size": 9}},
    "global": {**_STAGE, "epochs": 26, "optimizer": {"lr": 1e-3, "step_size": 18}},
    # Where a cam stage comes first, the global stage begins from its network, and both share the steps.
    "methods": {
        "icsr": {"global": {"model": {"weights": "cam"}, "epochs": 14, "optimizer": {"step_size": 10}}},
    },
}
