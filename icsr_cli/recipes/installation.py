"""Which libraries are installed, and whether they can be imported.

Nothing heavy is imported before it is looked at: a missing or broken library is what has to be told.
"""

import importlib
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal

from packaging.requirements import Requirement

from icsr_cli.runs.environment import version_of

#: ``bad``: needed, and missing or broken. ``optional``: not installed, and not needed for the main job.
State = Literal["ok", "warning", "optional", "bad"]

#: Import names that differ from the distribution's.
_MODULES: Final = {
    "scikit-learn": "sklearn",
    "faiss-gpu": "faiss",
    "faiss-cpu": "faiss",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "google-re2": "re2",
}
#: Both wheels hold the same module, so the other one serves as well.
_TWINS: Final = {"faiss-gpu": "faiss-cpu", "faiss-cpu": "faiss-gpu"}
#: Extras of those who work on icsr itself.
_OWN_EXTRAS: Final = ["dev"]


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
    extras = metadata.metadata("icsr").get_all("Provides-Extra") or []
    for requirement in map(Requirement, requirements):
        wanted = requirement.marker
        wanted_by = [one for one in ("", *extras) if wanted is None or wanted.evaluate({"extra": one})]
        if requirement.name != "icsr" and wanted_by and wanted_by != _OWN_EXTRAS:
            found.append(_look_at_library(requirement, wanted_by[0] or None))
    return tuple(found)


def _look_at_library(requirement: Requirement, extra: str | None) -> Library:
    name, bounds = requirement.name, str(requirement.specifier)
    install = f"pip install 'icsr[{extra}]'" if extra else f"pip install '{name}{bounds}'"
    version = version_of(name)
    if name in _TWINS and version is None and version_of(_TWINS[name]) is not None:
        name, version, bounds = _TWINS[name], version_of(_TWINS[name]), ""
    if version is None:
        return Library(name, None, bounds, extra, "optional" if extra else "bad", install)
    fault: State = "warning" if extra else "bad"
    if bounds and not requirement.specifier.contains(version, prereleases=True):
        return Library(name, version, bounds, extra, fault, f"{install} --upgrade")
    try:
        if name in _TWINS:
            importlib.import_module("torch")  # the other way round their CUDA libraries collide
        importlib.import_module(_MODULES.get(name, name))
    except MemoryError:  # the next ones would fail too, or hang
        raise
    except Exception as error:  # a broken library raises anything
        if "failed to map segment" in str(error):  # so says the loader where memory is short
            raise MemoryError from None
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Library(name, version, bounds, extra, fault, f"{reason}. {install}")
    return Library(name, version, bounds, extra, "ok")
