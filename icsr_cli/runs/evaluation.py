"""What a run's networks were measured at: ``evaluation.json``."""

import time
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open

from icsr_cli import __version__
from icsr_cli.errors import RunError, reason
from icsr_cli.files import checksum, read_json, write_json
from icsr_cli.runs.contents import Evaluations, check_contents

#: An entry with the same values here takes the place of an older one.
_KEY = ("dataset", "weights", "protocol", "rerank", "debias", "estimated")


def read_evaluations(run: Path) -> list[dict[str, Any]]:
    """Read the evaluations of a run folder, oldest first; none where nobody has measured.

    Each holds data set, protocol (``cross-camera``: the query's own camera does not count; ``tracks``: so for
    whole tracks), ``rerank`` and ``debias`` (None, or how), mAP, rank_1, rank_5, rank_10, mINP (0 to 1),
    queries, thresholds, the file of weights, date and version. One with ``estimated`` has thresholds alone.
    Those of weights that training has written anew since (``weights_sha256``) are left out.

    Raises:
        RunError: the file is damaged.
    """
    path = run / "evaluation.json"
    if not path.is_file():
        return []
    try:
        found = check_contents(Evaluations, read_json(path))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({reason(error)}). Mend or remove it, and run icsr eval again."
        ) from None
    return [entry for entry in found["evaluations"] if _holds(run, entry)]


def _holds(run: Path, entry: dict[str, Any]) -> bool:
    """Whether the weights are still those that were measured; older entries do not say which they were."""
    said = entry.get("weights_sha256")
    return said is None or weights_digest(run / entry.get("weights", "")) in (None, said)


def weights_digest(weights: Path) -> str | None:
    """Give what tells weights from others of that name: the checksum in our header, else that of the file.

    None where the file is gone or cannot be read.
    """
    try:
        with safe_open(weights, framework="np") as file:  # the header alone, without torch
            if said := (file.metadata() or {}).get("sha256"):
                return str(said)
    except (SafetensorError, OSError, ValueError):
        pass  # of another kind, or of a path that safetensors does not open
    return checksum(weights)


def image_thresholds(run: Path, weights: str) -> dict[str, Any]:
    """Give the newest entry with thresholds of two images, as these weights see them; empty without one.

    Measured ones come before those estimated from clusters. Those of tracks, or of features that something
    was taken off, are distances of another kind.

    Raises:
        RunError: the file is damaged.
    """
    found = [
        entry
        for entry in read_evaluations(run)
        if entry.get("thresholds")
        and entry.get("weights") == weights
        and entry.get("debias") in (None, "none")
        and entry.get("protocol") != "tracks"
    ]
    return max(reversed(found), key=lambda entry: not entry.get("estimated", False), default={})


def record_evaluations(run: Path, entries: list[dict[str, Any]]) -> None:
    """Add evaluations to those of a run folder, with date and version."""
    stamp = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "version": __version__}
    entries = [stamp | entry for entry in entries]
    new = [tuple(entry.get(key) for key in _KEY) for entry in entries]
    with FileLock(run / ".evaluation.lock"):  # another process may have measured as well
        kept = [entry for entry in read_evaluations(run) if tuple(entry.get(key) for key in _KEY) not in new]
        write_json(run / "evaluation.json", {"format": 1, "evaluations": [*kept, *entries]})
