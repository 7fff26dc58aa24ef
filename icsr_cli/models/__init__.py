"""Networks: backbone, pooling, embedding; weights in and out. One file per family in ``backbones``."""

from icsr_cli.models.catalogue import architecture, available, build, faults, resized
from icsr_cli.models.detection import detect, open_model
from icsr_cli.models.network import POOLINGS, ModelSpec, Network
from icsr_cli.models.weights import load_into, load_weights, read_metadata, save_weights, size_of

__all__ = [
    "POOLINGS",
    "ModelSpec",
    "Network",
    "architecture",
    "available",
    "build",
    "detect",
    "faults",
    "load_into",
    "load_weights",
    "open_model",
    "read_metadata",
    "resized",
    "save_weights",
    "size_of",
]
