"""What is installed, what the machine is, and what will be slow and why.

Only the standard library is imported here: a missing or broken library is what has to be told.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from icsr_cli.recipes.installation import Library, State, libraries
from icsr_cli.recipes.machine import Folder, Machine, look_at_folder, look_at_machine
from icsr_cli.runs.environment import version_of

_GB: Final = 1e9
#: Below these it is said that work will be slow, or may not fit.
_FEW_CORES: Final = 8
_SMALL: Final = 8 * _GB
#: The networks that the published settings begin with.
_PUBLISHED: Final = ("resnet50", "resnet_ibn50a")


@dataclass(frozen=True)
class Weights:
    """ImageNet weights of an architecture: where they are, or have to be put, and where they come from."""

    arch: str
    path: Path
    present: bool
    address: str


@dataclass(frozen=True)
class Finding:
    """Something the user should know, and what to do about it."""

    state: State
    what: str
    advice: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything ``icsr doctor`` shows."""

    libraries: tuple[Library, ...]
    machine: Machine
    folders: tuple[Folder, ...]
    weights: tuple[Weights, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing that is needed is missing or broken."""
        parts: tuple[Library | Folder | Finding, ...] = (*self.libraries, *self.folders, *self.findings)
        return all(part.state != "bad" for part in parts)

    def as_dict(self) -> dict[str, Any]:
        """Give everything for JSON."""
        return {"healthy": self.healthy, **asdict(self)}


def diagnose(data_root: Path, runs_root: Path) -> Diagnosis:
    """Look at libraries, machine, folders and weights. Nothing is written or downloaded."""
    found = libraries()
    broken = {library.name for library in found if library.state == "bad"}
    machine = look_at_machine(torch_works="torch" not in broken)
    folders = (look_at_folder("data", data_root), look_at_folder("runs", runs_root))
    weights = () if broken else imagenet_weights()
    return Diagnosis(found, machine, folders, weights, tuple(findings(machine, found, weights)))


def imagenet_weights() -> tuple[Weights, ...]:
    """Tell for each architecture with ImageNet weights whether they lie where they are looked for."""
    from icsr_cli.models import architecture, available

    sources = {arch: architecture(arch).source for arch in available()}
    return tuple(
        Weights(arch, source.file, source.file.is_file(), source.address)
        for arch, source in sources.items()
        if source is not None
    )


def findings(machine: Machine, libraries: tuple[Library, ...], weights: tuple[Weights, ...]) -> list[Finding]:
    """Say what will be slow, or surprise, and what to do about it."""
    said = [*_about_faiss(machine, libraries), *_about_gpus(machine), *_about_size(machine)]
    said += [
        (
            f"ImageNet weights of {item.arch} are not on this machine (--weights imagenet needs them).",
            f"icsr train --download fetches them; without a network get {item.address} and put it "
            f"at {item.path}. The demo needs none.",
        )
        for item in weights
        if item.arch in _PUBLISHED and not item.present
    ]
    return [Finding("warning", what, advice) for what, advice in said]


def _about_faiss(machine: Machine, libraries: tuple[Library, ...]) -> Iterator[tuple[str, str]]:
    wheels = {"faiss-gpu", "faiss-cpu"}
    there = {library.name for library in libraries} | {name for name in wheels if version_of(name)}
    if wheels <= there:
        yield (
            "faiss-gpu and faiss-cpu are both installed and overwrite each other's files.",
            "pip uninstall faiss-gpu faiss-cpu, then install one of them.",
        )
    if machine.gpus and not machine.faiss_gpus:
        yield (
            "faiss sees no GPU: nearest neighbours are found on the GPU by torch instead, slower.",
            "Install faiss-gpu (Linux, x86-64), and not faiss-cpu beside it.",
        )
    elif machine.gpus and machine.faiss_gpus != len(machine.gpus):
        yield f"torch sees {len(machine.gpus)} GPUs, faiss {machine.faiss_gpus}.", "Check both."


def _about_gpus(machine: Machine) -> Iterator[tuple[str, str]]:
    if not machine.gpus:
        why, advice = "torch finds no GPU", ""
        if machine.driver is not None and machine.cuda is not None:
            why += f", though there is a driver of NVIDIA ({machine.driver})"
            advice = f"Check the driver against CUDA {machine.cuda}, and CUDA_VISIBLE_DEVICES. "
        elif machine.driver is not None:
            why += f", because this torch is built without CUDA; there is a driver ({machine.driver})"
            advice = "Install torch with CUDA. "
        yield (
            f"Training and features will be slow: {why}.",
            advice + "resnet_small at 64 x 32 (icsr demo) suits a CPU; a published data set wants a GPU.",
        )
    for number, gpu in enumerate(machine.gpus):
        if gpu.free < _SMALL:
            yield (
                f"GPU {number} ({gpu.name}) has {gpu.free / _GB:.1f} GB of {gpu.memory / _GB:.1f} GB free.",
                "If a batch does not fit, take a smaller -b, or end what else uses it.",
            )


def _about_size(machine: Machine) -> Iterator[tuple[str, str]]:
    cores = f"{machine.cpus} CPU core" + ("s" if machine.cpus > 1 else "")
    if machine.cpus < _FEW_CORES and machine.gpus:
        yield (
            f"Decoding images and the Jaccard distances will be slow: {cores}.",
            "Images are decoded once and kept. Fewer images, or more cores, help.",
        )
    elif machine.cpus < _FEW_CORES:
        yield (
            "Decoding images, the Jaccard distances and nearest neighbours (time grows with the square of "
            f"the number of images) will be slow: {cores}.",
            "Fewer images, more cores or a GPU help; see docs/labels.md for times.",
        )
    if machine.numba_threads is not None and machine.numba_threads < machine.cpus:
        yield (
            f"Compiled loops use {machine.numba_threads} of {machine.cpus} cores.",
            "Unset NUMBA_NUM_THREADS (or raise it).",
        )
    if machine.memory < _SMALL:
        yield (
            f"{machine.memory / _GB:.1f} GB of memory is little.",
            "Take a smaller -b, smaller images (--height, --width) or fewer of them.",
        )
