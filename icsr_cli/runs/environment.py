"""What a result was made with: versions, machine, command."""

import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "icsr",
    "torch",
    "torchvision",
    "faiss-gpu",
    "faiss-cpu",
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
)


def describe() -> dict[str, Any]:
    """Give the versions, the machine, the devices and the command line, ready for JSON."""
    import torch

    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "libraries": {name: version for name in LIBRARIES if (version := version_of(name))},
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def processor() -> str:
    """Give the model of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def version_of(name: str) -> str | None:
    """Give the installed version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
