"""Which libraries are installed, and whether they can be imported.

Only the standard library is imported here: a missing or broken library is what has to be told.
"""

from __future__ import annotations

import importlib
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal

#: ``bad``: needed, and missing or broken. ``optional``: not installed, and not needed for the main job.
State = Literal["ok", "warning", "optional", "bad"]

#: Import names that differ from the distribution's.
_MODULES: Final = {
    "scikit-learn": "sklearn",
    "faiss-gpu": "faiss",
    "faiss-cpu": "faiss",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
_REQUIREMENT = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?P<bounds>[^;]*)(?:;(?P<marker>.*))?$"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")
#: Extras of those who work on icsr itself.
_OWN_EXTRAS: Final = frozenset({"dev"})


@dataclass(frozen=True)
class Library:
    """One distribution. ``version`` is None where it is not installed, ``extra`` where it is needed."""

    name: str
    version: str | None
    wanted: str
    extra: str | None
    state: State
    advice: str = ""


def libraries() -> tuple[Library, ...]:
    """Hold the requirements of the installed icsr against what is installed, and import what is."""
    try:
        requirements = metadata.requires("icsr") or []
    except metadata.PackageNotFoundError:
        advice = "Install it: pip install icsr, or pip install -e . in its source folder."
        return (Library("icsr", None, "", None, "bad", advice),)
    found = [Library("icsr", metadata.version("icsr"), "", None, "ok")]
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or match["name"] == "icsr":
            continue
        marker = match["marker"] or ""
        extra = _EXTRA.search(marker)
        if (extra and extra["extra"] in _OWN_EXTRAS) or not _applies(marker):
            continue
        bounds = match["bounds"].replace("(", "").replace(")", "").strip()
        found.append(_look_at_library(match["name"], bounds, extra["extra"] if extra else None))
    return tuple(found)


def _applies(marker: str) -> bool:
    """Tell whether a requirement is one of this platform: the only markers icsr has besides extras."""
    linux = sys.platform == "linux" and platform.machine() == "x86_64"
    if "sys_platform" not in marker:
        return True
    return linux if "==" in marker.partition("extra")[0] else not linux


def _look_at_library(name: str, bounds: str, extra: str | None) -> Library:
    install = f"pip install 'icsr[{extra}]'" if extra else f"pip install '{name}{bounds}'"
    version = version_of(name)
    if name.startswith("faiss-") and version is None:
        # Both wheels hold the same module; the other one serves as well.
        other = "faiss-cpu" if name == "faiss-gpu" else "faiss-gpu"
        if version_of(other) is not None:
            name, version, bounds = other, version_of(other), ""
    if version is None:
        return Library(name, None, bounds, extra, "optional" if extra else "bad", install)
    if not _is_at_least(version, bounds):
        return Library(name, version, bounds, extra, "warning" if extra else "bad", f"{install} --upgrade")
    try:
        if name.startswith("faiss-"):
            importlib.import_module("torch")  # the other way round their CUDA libraries collide
        importlib.import_module(_MODULES.get(name, name))
    except MemoryError:  # the next ones would fail too, or hang
        raise
    except Exception as error:  # a broken library raises anything
        if "failed to map segment" in str(error):  # so says the loader where memory is short
            raise MemoryError from None
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Library(name, version, bounds, extra, "warning" if extra else "bad", f"{reason}. {install}")
    return Library(name, version, bounds, extra, "ok")


def version_of(name: str) -> str | None:
    """Give the installed version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_at_least(version: str, bounds: str) -> bool:
    """Compare the numbers of a version with a bound such as ``>=1.2``; other bounds are not looked at."""
    match = re.search(r">=\s*([0-9.]+)", bounds)
    return match is None or _numbers(version) >= _numbers(match[1])


def _numbers(version: str) -> list[int]:
    found = re.match(r"[0-9.]+", version)
    return [int(part) for part in found[0].strip(".").split(".")] if found else []
