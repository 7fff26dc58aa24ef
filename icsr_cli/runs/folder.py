"""The run folder: ``<runs>/<data set>/<stage>/<run>/`` and what lies in it.

========================  =====================================================================
``run.json``              stage, data set, status (running, finished, interrupted, failed), times
``settings.yaml``         the settings as they were resolved
``environment.json``      versions, machine, the command that began it
``metrics.jsonl``         one JSON object per finished epoch
``log.txt``               what was reported, with times
``checkpoints/*.pt``      the state a resumed run goes on from (``torch.load(weights_only=True)``)
``last.safetensors``      the network after the last epoch; ``best.safetensors`` that of the chosen one
``labels/epoch_012.csv``  labels of an epoch (see ``icsr_cli.runs.labels``); ``labels/local.csv``
``pairs.csv``             what is known of pairs of images (see ``icsr_cli.runs.pairs``), if anything is
``local.csv``             the run's own copy of the local labels that it was given, if it was
``then.yaml``             the settings file that the stage behind a cam run was given, if it was
``evaluation.json``       what was measured of it (see ``icsr_cli.runs.evaluation``), if anything was
``events/``               event files for TensorBoard, where they were asked for
========================  =====================================================================
"""

import hashlib
import io
import json
import logging
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from icsr_cli.errors import RunError, reason
from icsr_cli.files import (
    check_zip,
    checksum,
    parse_json,
    read_bytes,
    read_json,
    regular,
    write_bytes,
    write_json,
    write_text,
)
from icsr_cli.plain_yaml import flat, format_yaml, parse_yaml
from icsr_cli.runs.contents import Epoch, Info, Made, Written, check_contents
from icsr_cli.runs.tensorboard import write_events

STAGES = ("cam", "global")
#: What a run may go on with otherwise than it began: it changes the memory needed, not what is learnt.
MAY_CHANGE = {"evaluation.batch_size"}
#: In bytes; characters have at most 4.
_LONGEST_SETTINGS = 4 << 20
#: Without a handler of somebody's it writes to standard error.
_LOG = logging.getLogger("icsr")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Methods that write leave the old file in place until the new one is whole."""

    path: Path

    @property
    def stage(self) -> str:
        """``cam`` or ``global``."""
        return str(self.info()["stage"])

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.info()["dataset"])

    @property
    def camera_names(self) -> tuple[str, ...]:
        """What the cameras are called; none in a run that does not say it."""
        return tuple(self.info().get("camera_names", ()))

    def camera_name(self, camera: int) -> str:
        """Name a camera, by its number where the run does not say what it is called."""
        names = self.camera_names
        return names[camera] if camera < len(names) else str(camera)

    @property
    def local(self) -> Path | None:
        """The run's own copy of the local labels that it was given; None where it was given none.

        Raises:
            RunError: it is gone, or no longer what it was.
        """
        info = self.info()
        given, digest = info.get("local"), info.get("local_sha256")
        if given is None or digest is None:  # a run that is older than the copies names the file alone
            return given and Path(str(given))
        place = self.path / f"local{Path(str(given)).suffix}"
        if checksum(place) != digest:
            raise RunError(f"{place} has changed since the run began: it goes on as it began or not at all.")
        return place

    @property
    def chosen_by(self) -> str:
        """What chose the epoch of ``best.safetensors``: ``last``, ``silhouette`` or ``test-map``."""
        return str(self._settings_there().get("select", "last"))

    @property
    def precision(self) -> str:
        """What it computes in: ``fp32``, ``bf16`` or ``auto``."""
        return str(self._settings_there().get("precision", "auto"))

    def _settings_there(self) -> dict[str, Any]:
        """Read the settings where they are written down; none elsewhere."""
        return self.settings() if (self.path / "settings.yaml").is_file() else {}

    @property
    def choice(self) -> str:
        """Say of which epoch ``best.safetensors`` is, and what chose it; nothing where it is the last."""
        by = self.chosen_by
        if by == "last" or self.stage == "cam":  # each camera's labels are of its own best epoch
            return ""
        epoch = self.info().get("best_epoch", "unknown")  # in runs from before 0.2
        return f"epoch {epoch}, chosen by {'the test set (test-map)' if by == 'test-map' else by}"

    def keep_local(self, source: Path) -> None:
        """Copy the local labels that the run is given; it goes on by them, whatever becomes of the file."""
        content = source.read_bytes()
        write_bytes(self.path / f"local{source.suffix}", content)
        self.update_info(local=str(source), local_sha256=hashlib.sha256(content).hexdigest())

    @property
    def labels(self) -> Path:
        """The folder of the label tables."""
        return self.path / "labels"

    def label_file(self, epoch: int) -> Path:
        """Name the labels that epoch ``epoch`` (from 1) was trained on."""
        return self.labels / f"epoch_{epoch:03d}.csv"

    def epoch_files(self) -> list[Path]:
        """Give the files of labels of the epochs, in order."""
        epochs = (file for file in self.labels.glob("epoch_*.csv") if file.stem[6:].isdecimal())
        return sorted(epochs, key=epoch_of)

    def label_files(self) -> list[Path]:
        """Give the files of labels there are: those of the epochs, else the local ones of a cam run."""
        local = self.labels / "local.csv"
        return self.epoch_files() or ([local] if local.is_file() else [])

    def find_labels(self, epoch: int | None = None) -> Path:
        """Give the labels of an epoch, from 1, or the last ones.

        Raises:
            RunError: there are none.
        """
        files = self.label_files()
        if not files:
            status = self.info().get("status")
            raise RunError(
                f"The run {self.path} ({status}) has no labels yet: its first epoch is not finished."
            )
        if epoch is None:
            return files[-1]
        if (file := self.label_file(epoch)).is_file():
            return file
        there = ", ".join(str(epoch_of(file)) for file in self.epoch_files())
        raise RunError(
            f"The run {self.path} has no labels of epoch {epoch}; it has: {there or 'local labels'}."
        )

    def info(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises:
            RunError: it is missing, damaged, or does not say stage and data set.
        """
        path = self.path / "run.json"
        try:
            return dict(check_contents(Info, read_json(path)))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} cannot be read: {reason(error)}. Mend that file, or remove the run."
            ) from None

    def update_info(self, **values: Any) -> None:
        """Set fields of ``run.json``; other processes may set others meanwhile."""
        path = self.path / "run.json"
        with FileLock(self.path / ".info.lock"):
            write_json(path, (self.info() if path.exists() else {}) | values)

    def settings(self) -> dict[str, Any]:
        """Read the settings of the run as plain values, without the other stage's, which older runs list."""
        path = self.path / "settings.yaml"
        try:
            found = check_contents(Written, parse_yaml(read_bytes(path, _LONGEST_SETTINGS).decode("utf-8")))
        except (OSError, ValueError) as error:
            raise RunError(
                f"The settings of the run {self.path} cannot be read: {error}. Mend its settings.yaml."
            ) from None
        return {key: value for key, value in found.items() if key not in STAGES or key == self.stage}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the resolved settings."""
        write_text(self.path / "settings.yaml", format_yaml(settings))

    def environment(self) -> dict[str, Any]:
        """Read what the run was made with; it is not needed, so a damaged file is none."""
        try:
            return dict(check_contents(Made, read_json(self.path / "environment.json")))
        except (OSError, ValueError):
            return {}

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write versions, machine and command."""
        write_json(self.path / "environment.json", dict(environment))

    def finish(self) -> None:
        """Mark the run as finished; one that was finished before, and had nothing left to do, ended then."""
        self.update_info(status="finished", ended=self.info().get("ended") or now())

    def remove(self) -> None:
        """Remove the folder of a run in which nothing was trained."""
        shutil.rmtree(self.path, ignore_errors=True)

    def elapsed(self) -> float | None:
        """Give the seconds from the start of the run to its end by the clock; None where it has not ended."""
        info = self.info()
        try:
            started, ended = (datetime.fromisoformat(info[key]) for key in ("started", "ended"))
            return (ended - started).total_seconds()
        except (KeyError, ValueError, TypeError):  # TypeError: one of them names no zone
            return None

    def metrics(self) -> list[dict[str, Any]]:
        """Read what each finished epoch gave, in order. A last line that is cut off is left out, with a word.

        Raises:
            RunError: it cannot be read, or another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            lines = read_bytes(path).split(b"\n")
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}. Put the run's own there.") from None
        if lines.pop():
            warn_once(f"The last line of {path} is cut off and left out.")
        done: dict[str, int] = {}
        return [_figures(path, number, line, done) for number, line in enumerate(lines, 1)]

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Replace the metrics. The file is small; written anew it never holds half a line."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(self.path / "metrics.jsonl", text)

    def record(self, line: dict[str, Any]) -> None:
        """Add what a finished epoch gave to the metrics, and to the event files if they are wanted."""
        with self._metrics_lock():
            self.write_metrics([*self.metrics(), line])
        if self.info().get("tensorboard"):
            write_events(self.path / "events", line)

    def go_on(self, epoch: int, figures: str | None, part: str | None = None) -> None:
        """Have the metrics of ``part`` end as its checkpoint does: with ``epoch``, whose line is ``figures``.

        Lines behind it are of epochs whose checkpoint was not written. Its own is there, unless somebody has
        cut the file; checkpoints from before 0.2 do not hold it.
        """
        with self._metrics_lock():
            lines = self.metrics()
            kept = [line for line in lines if line.get("part") != part or line["epoch"] <= epoch]
            if figures and (part, epoch) not in [(line.get("part"), line["epoch"]) for line in kept]:
                kept.append(self._put_back(figures))
                _LOG.warning("Epoch %d is put back into the metrics, from its checkpoint.", epoch)
            if kept != lines:
                self.write_metrics(kept)

    def _put_back(self, figures: str) -> dict[str, Any]:
        """Read the line of an epoch that a checkpoint holds."""
        try:
            return dict(check_contents(Epoch, parse_json(figures)))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"A checkpoint in {self.path} holds no figures of its epoch ({reason(error)}). Remove it to "
                "start anew."
            ) from None

    def _metrics_lock(self) -> FileLock:
        """Keep other processes off the metrics: in the cam stage each trains cameras of its own."""
        return FileLock(self.path / ".metrics.lock")

    def save_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Write tensors and plain values under ``checkpoints/name.pt``."""
        import torch

        # Through memory: torch hides the reason of a failed write, a full disk for instance.
        buffer = io.BytesIO()
        torch.save({**state, "part": name, "run": self._mark(), "settings": self._saved_by}, buffer)
        with buffer.getbuffer() as content:  # given back where the write fails: the buffer is freed then
            write_bytes(self.path / "checkpoints" / f"{name}.pt", content)

    def load_state(self, name: str, *parts: str) -> dict[str, Any] | None:
        """Read a state back, on the CPU; None where there is none.

        Raises:
            RunError: where the file is damaged, lacks one of ``parts``, is of another run or part of it, or
                was made by other settings than the run's file has now.
        """
        import torch

        path = self.path / "checkpoints" / f"{name}.pt"
        if not path.exists():
            return None
        try:
            check_zip(regular(path))
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            # Never what torch advises where it refuses to run what lies in a file.
            unsafe = isinstance(error, pickle.UnpicklingError)
            why = "it is damaged, or holds more than numbers" if unsafe else reason(error)
            raise RunError(
                f"The checkpoint {path} cannot be read ({why}). Remove it to start anew."
            ) from None
        missing = [part for part in ("epoch", *parts) if not isinstance(state, dict) or part not in state]
        if missing or not isinstance(state["epoch"], int):
            raise RunError(
                f"The checkpoint {path} is none of this stage ({', '.join(missing) or 'epoch'} missing). "
                "Remove it to start anew."
            )
        if state.pop("run", self._mark()) != self._mark():  # none in those of version 0.1
            raise RunError(
                f"The checkpoint {path} is of another run. Put this run's own there, or remove it."
            )
        if (part := state.pop("part", name)) != name:  # none in those from before 0.2
            raise RunError(
                f"The checkpoint {path} is of another part of the run ({part!r}). Put its own there, or "
                "remove it to start anew."
            )
        then, now = state.pop("settings", {}), self._trained_by()
        # What only one of them has is of another version.
        other = [key for key in then if key in now and now[key] != then[key]]
        if other:
            changed = ", ".join(f"{key} from {then[key]!r} to {now[key]!r}" for key in other)
            raise RunError(
                f"The settings in {self.path / 'settings.yaml'} were changed after {path.name} was written: "
                f"{changed}. Change them back, or start a new run without --resume."
            )
        return dict(state)

    def check_network(self, part: str, *names: str) -> None:
        """Refuse to take training that ended with the checkpoint ``part`` for finished without its networks.

        Raises:
            RunError: the file of one of ``names`` is gone.
        """
        for name in names:
            if not (path := self.path / f"{name}.safetensors").is_file():
                raise RunError(
                    f"{path} is gone, which was trained to the end. Put it back, or remove "
                    f"{self.path / 'checkpoints' / f'{part}.pt'} to train it anew."
                )

    @cached_property
    def _saved_by(self) -> dict[str, Any]:
        """The settings of all states that are saved: those of the first, whatever becomes of the file."""
        return self._trained_by()

    def _trained_by(self) -> dict[str, Any]:
        """Give the settings that a state depends on, by dotted key, where they are written down."""
        return {key: value for key, value in _leaves(self._settings_there()) if key not in MAY_CHANGE}

    def _mark(self) -> str:
        """Tell this run from others, wherever its folder is moved to: its stage and the moment it began."""
        return f"{self.stage} {self.info().get('started')}"


def epoch_of(file: Path) -> int:
    """Give the epoch, from 1, in the name of its labels."""
    return int(file.stem.removeprefix("epoch_"))


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give each dotted key with its value; the items of a list by their numbers, and how many there are."""
    for key, value in flat(tree):
        if isinstance(value, list):
            yield key, len(value)
            yield from _leaves({f"{key}.{number}": item for number, item in enumerate(value)})
        else:
            yield key, value


@cache
def warn_once(text: str) -> None:
    """Say what is found anew each time that a file is read."""
    _LOG.warning("%s", text)


def now() -> str:
    """Give the time in UTC, to the microsecond: runs are put in order by it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _figures(path: Path, number: int, line: bytes, done: dict[str, int]) -> dict[str, Any]:
    """Read a line; ``done`` holds the last epoch of each network before it. A line may have been removed."""
    try:
        found = dict(check_contents(Epoch, parse_json(line)))
        epoch, part = found["epoch"], found.get("part", "")
        if epoch <= (before := done.get(part, 0)):
            raise ValueError(f"epoch {epoch} stands after epoch {before}")
        done[part] = epoch
        return found
    except ValueError as error:
        raise RunError(
            f"Line {number} of {path} is damaged ({reason(error)}). Remove that line: the rest is intact."
        ) from None
