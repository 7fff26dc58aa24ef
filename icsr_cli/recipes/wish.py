"""What somebody asks of a run, and what it comes to on a data set: settings, local labels, pairs."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from icsr_cli import config
from icsr_cli.config.schema import Settings
from icsr_cli.errors import RunError, UsageError
from icsr_cli.progress import Progress
from icsr_cli.runs import newest, open_run, run_of
from icsr_cli.runs.pairs import read_pairs
from icsr_cli.types import Dataset, Pairs

#: Gives the settings of a run, with others laid beneath those that the user gave.
Resolved: TypeAlias = Callable[..., Settings]


@dataclass(frozen=True)
class Wish:
    """What somebody asks of a run beside the data set.

    ``options``: dotted keys with values; ``assignments``: ``key=value``; ``config``: a settings file.
    ``config_typed``: whether it was named for this run, not for all. ``after``: the cam run of the same
    command, from which the global stage takes what it needs. ``then``: what the same command asks of the
    global stage behind this one. ``plugins``: (path, SHA-256) of each file that was loaded. ``pairs``: a file
    of what is known of pairs; ``pairs_labels``: the run, or label file, whose clusters it names.
    ``contents``: of ``config`` and ``pairs`` as they were at first, whatever becomes of them while a command
    trains one run after another. ``processes``: how many train. ``facts``: more of ``run.json``.
    """

    runs_root: Path
    method: str | None = None
    config: Path | None = None
    config_typed: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    assignments: Sequence[str] = ()
    local: Path | None = None
    after: Path | None = None
    then: "Wish | None" = None
    cameras: Sequence[int] | None = None
    plugins: Sequence[tuple[str, str]] = ()
    pairs: Path | None = None
    pairs_labels: Path | None = None
    contents: dict[Path, bytes] = field(default_factory=dict)
    name: str | None = None
    processes: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in (self.config, self.pairs):
            if file is not None and file not in self.contents:
                with suppress(OSError):  # whoever needs it tells why it cannot be read
                    self.contents[file] = file.read_bytes()

    def content(self, file: Path | None) -> bytes | None:
        """Give what ``config`` or ``pairs`` held at first; None where it could not be read."""
        return None if file is None else self.contents.get(file)

    def kept(self) -> dict[str, Any]:
        """Give what a run cannot be told again by ``--resume`` alone, as plain values."""
        return {
            "name": self.name,
            "method": self.method,
            "config": None if self.config is None else str(self.config.absolute()),
            "config_sha256": self.config and hashlib.sha256(self.contents[self.config]).hexdigest(),
            "options": {key: value for key, value in self.options.items() if value is not None},
            "assignments": list(self.assignments),
        }


def resolve(
    data: Dataset,
    wish: Wish,
    progress: Progress,
    stages: Iterable[str] = (),
    beneath: Mapping[str, Any] | None = None,
) -> Settings:
    """Resolve the settings of a run on ``data``; what its images cannot meet in ``stages`` is a fault."""
    return config.load_for(
        data,
        config=wish.config,
        content=wish.content(wish.config),
        method=wish.method,
        options=wish.options,
        assignments=wish.assignments,
        beneath=dict(beneath or {}),
        images=dict.fromkeys(stages, len(data.train)),
        note=progress.note if beneath is None else lambda message: None,
    )


def uses_local(settings: Settings) -> bool:
    """Whether a refiner of the global stage asks for local labels."""
    return any("local" in refiner.needs for refiner in settings.global_.refiners)


def use_local(settings: Settings, resolved: Resolved, given: Path | None = None) -> Settings:
    """Have the local labels used that are ``given``, or made by ``global.local``: by ``majority`` if by none.

    A cam run may be given for its weights alone. Raises UsageError where the user's own refiners use none.
    """
    own = settings.global_
    asked = own.local is not None or (given is not None and own.model.weights != "cam")
    if uses_local(settings) or not asked:
        return settings
    refiners = ["majority", *(refiner.dump() for refiner in settings.global_.refiners)]
    settings = resolved({"global": {"refiners": refiners}})
    if not uses_local(settings):
        raise UsageError(
            "No refiner uses the local labels: add one that does (--refine majority or discard)."
        )
    return settings


def find_local(local: Path | None, runs_root: Path, dataset: str) -> Path:
    """Give the file of local labels: of a cam run, a file as such, or of the newest cam run.

    Raises RunError where there is none.
    """
    if local is None:
        return newest(runs_root, dataset, "cam", file="labels/local.csv").labels / "local.csv"
    if local.is_file():
        return local
    if not local.exists():
        raise RunError(
            f"--local {local}: that is not there. It takes a cam run, a label file, or tracks. To train "
            "without local labels, leave it out and take refiners that use none (--refine none)."
        )
    run = open_run(local)
    path = run.labels / "local.csv"
    if run.stage != "cam":
        raise RunError(
            f"{run.path} is a run of the {run.stage} stage; --local takes a cam run, or a label file."
        )
    if not path.is_file():
        raise RunError(f"The run {local} has no labels/local.csv: it is not finished. Go on with --resume.")
    return path


def find_cam_weights(local: Path) -> Path:
    """Give the weights of the shared network of the cam run that ``local`` belongs to.

    Raises RunError where that run trained a network per camera, or none.
    """
    path = (run_of(local) or open_run(local)).path / "last.safetensors"
    if not path.is_file():
        raise RunError(
            f"--init cam needs the shared network of a cam run, and there is no {path}. "
            "Train it with: icsr train cam --network shared; or take --init imagenet, none or a file."
        )
    return path


def pairs_of(wish: Wish, data: Dataset) -> Pairs | None:
    """Read what is known of pairs; None where nothing is said. Raises UsageError as ``read_pairs`` does."""
    return read_pairs(wish.pairs, data.train.paths, wish.pairs_labels, wish.content(wish.pairs))


def images_of(data: Dataset) -> str:
    """Give the SHA-256 of what is trained on: paths and cameras, in order."""
    digest = hashlib.sha256(data.train.cameras.astype("<i8").tobytes())
    digest.update("\0".join(data.train.paths).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
