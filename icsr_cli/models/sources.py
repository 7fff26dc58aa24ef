"""Where published weights are to be had, and how they get here: only where somebody asks."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch

from icsr_cli.errors import ModelError

#: The environment's word that weights may be downloaded.
DOWNLOAD = "ICSR_DOWNLOAD"


@dataclass(frozen=True)
class Source:
    """Pretrained weights of an architecture.

    ``address``: where they are to be had; of a file that torch hub keeps, its name ends in the first eight
    digits of its SHA-256. ``licence``: that of the library that offers them, or what it says of them; else
    where to look.
    """

    address: str
    licence: str

    @property
    def file(self) -> Path:
        """Where torch hub keeps it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.address).path).name


def may_download() -> bool:
    """Tell whether somebody asked for downloads: the environment says ``ICSR_DOWNLOAD=1``."""
    return os.environ.get(DOWNLOAD) == "1"


def fetch(source: Source, arch: str) -> Path:
    """Give the file of ImageNet weights in torch hub's folder; fetch and check it where that was asked for.

    Raises ModelError where it is missing, cannot be fetched, or its SHA-256 is not the one in its name.
    """
    file, address = source.file, source.address
    if file.exists():
        return file
    ways = (
        f"Download {address} (licence: {source.licence}) and put it there, or name it with --init FILE, or "
        "start from random weights with --init none."
    )
    if not may_download():
        raise ModelError(
            f"ImageNet weights of {arch}: {file.name} is not in {file.parent}, and nothing is downloaded "
            f"without being asked for. Add --download, once. {ways}"
        )
    digest = file.stem.rpartition("-")[2]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(file), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError, ValueError) as error:  # URLError: an OSError; a wrong hash: RuntimeError
        raise ModelError(
            f"ImageNet weights of {arch}: {file.name} is not in {file.parent} and could not be fetched "
            f"({error}). {ways}"
        ) from error
    return file
