"""Where published weights are to be had, and how they get here: only where somebody asks."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

import torch

from icsr_cli.errors import ModelError, reason
from icsr_cli.files import checksum

T = TypeVar("T")

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


def download(what: str, place: str, ways: str, get: Callable[[], T]) -> T:
    """Call ``get`` where somebody asked for downloads: the environment says ``ICSR_DOWNLOAD=1``.

    Raises ModelError where nobody did or it fails: ``what`` is not ``place``, and there are other ``ways``.
    """
    if os.environ.get(DOWNLOAD) != "1":
        raise ModelError(
            f"{what} is not {place}, and nothing is downloaded without being asked for. Add --download, "
            f"once. {ways}"
        )
    try:
        return get()
    except Exception as error:  # the hub's client raises errors of several libraries
        raise ModelError(
            f"{what} is not {place} and could not be fetched ({reason(error)}). {ways}"
        ) from error


def fetch(source: Source, arch: str) -> Path:
    """Give the file of ImageNet weights in torch hub's folder; fetch it where that was asked for.

    Raises ModelError where it is missing, cannot be fetched, or its SHA-256 is not the one in its name.
    """
    file, address = source.file, source.address
    digest = file.stem.rpartition("-")[2]
    ways = (
        f"Download {address} (licence: {source.licence}) and put it there, or name it with --init FILE, "
        "or start from random weights with --init none."
    )

    def get() -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(file), hash_prefix=digest, progress=False)

    if not file.exists():  # and then it is checked as it comes
        download(f"ImageNet weights of {arch}: {file.name}", f"in {file.parent}", ways, get)
    elif (found := checksum(file)) and not found.startswith(digest):
        raise ModelError(
            f"{file}: damaged, or another file: its SHA-256 begins with {found[: len(digest)]}, not as its "
            f"name says. Remove it and add --download, once. {ways}"
        )
    return file
