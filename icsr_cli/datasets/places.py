"""Where a data set may lie: the published places below the data root, a folder, an archive."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from icsr_cli.datasets import archives
from icsr_cli.datasets.layout import Benchmark, Reading
from icsr_cli.errors import DatasetError, IcsrError
from icsr_cli.progress import Progress

#: The folders that are made here; any other is the user's own.
_MADE = re.compile("(unpacked|rendered)-[0-9a-f]{8}")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def published(benchmark: Benchmark, data_root: Path) -> Path:
    """Find a published data set, or its archive, where the published code has it.

    That is ``<data root>/<name>/<place>`` as in ``data/market1501/Market-1501-v15.09.15``, the same below
    ``examples/data``, or anywhere below ``<data root>/<name>``. Raises DatasetError that says what to do.
    """
    roots = [data_root, data_root.parent / "examples" / "data", Path("examples/data")]
    places = [root / benchmark.name / benchmark.place for root in roots]
    places += [root / benchmark.place for root in roots] + [root / benchmark.name for root in roots]
    fault: DatasetError | None = None
    for place in places:
        if place.is_dir():
            try:
                return benchmark.locate(place)[0]
            except DatasetError as error:
                fault = error if "incomplete" in str(error) else fault
    for root in roots:
        found = _archive(root / benchmark.name, benchmark.place) or _archive(root, benchmark.place)
        if found is not None:
            return found
    if fault is not None:
        raise fault
    raise DatasetError(
        f"{benchmark.title} was not found; looked for {places[0]} and below {places[-len(roots)]}. "
        f"Ask for it: {benchmark.ask}\nThen give the archive or its folder: "
        f"icsr prepare {benchmark.name} --source PATH. Expected:\n{benchmark.expected()}"
    )


def _archive(folder: Path, place: str) -> Path | None:
    return next((path for end in _ARCHIVES if (path := folder / f"{place}{end}").is_file()), None)


def read(
    source: Path, folder: Path, reader: Callable[[Path], Reading], expansion: int, progress: Progress
) -> Reading:
    """Read ``source``: a folder, or an archive, which is unpacked below ``folder`` first.

    An archive that was unpacked before and has not changed is not unpacked again; one that turns out not to
    hold what ``reader`` wants is not kept. Raises DatasetError, and what ``reader`` raises.
    """
    if source.is_dir():
        return reader(source)
    if not source.is_file():
        state = "is neither a folder nor a file" if source.exists() else "does not exist"
        raise DatasetError(f"The source {source} {state}. Give an archive or a folder to --source.")
    target = folder / f"unpacked-{archives.stamp(source)}"
    if target.is_dir():
        return reader(target)
    archives.unpack(source, target, expansion=expansion, progress=progress)
    try:
        return reader(target)
    except IcsrError:
        shutil.rmtree(target, ignore_errors=True)
        raise


def forget_others(folder: Path, root: Path) -> None:
    """Delete what earlier runs unpacked or rendered in ``folder``, apart from what holds ``root``."""
    kept = root.resolve()
    for old in folder.iterdir():
        if _MADE.fullmatch(old.name) and not kept.is_relative_to(old.resolve()):
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one who prepares in ``folder``, and clear what a killed run left half made.

    Raises DatasetError where another process is at work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(folder / ".prepare.lock", timeout=0))
        except Timeout:
            raise DatasetError(f"Another icsr prepare is at work in {folder}. Wait for it to end.") from None
        for leftover in folder.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
