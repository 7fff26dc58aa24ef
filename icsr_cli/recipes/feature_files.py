"""Files of features: what ``icsr embed`` writes, and what ``icsr labels generate`` takes from anywhere."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from icsr_cli.checks import check_distinct, texts, whole_numbers
from icsr_cli.errors import InputError, MissingExtraError, UsageError
from icsr_cli.files import map_array, read_arrays
from icsr_cli.types import FloatArray, IntArray

#: Writes to a path: features (n, d), columns (n,) by name, and what is known of them as JSON.
Save: TypeAlias = Callable[[Path, FloatArray, Mapping[str, Any], str], None]


_COLUMNS = ("cameras", "local_labels", "ids", "tracks", "frames")


@dataclass(frozen=True)
class Given:
    """What a file holds: features (n, d), and whole numbers or names (n,), or None."""

    features: Any
    cameras: IntArray | None
    local_labels: IntArray | None
    ids: IntArray | None
    tracks: IntArray | None
    frames: IntArray | None
    paths: Any


def writer(suffix: str) -> Save:
    """Give what writes features as ``.npz`` or ``.parquet``.

    Raises MissingExtraError, before anything is computed, where the library for it is not installed.
    """
    if suffix == ".npz":
        return _save_npz
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "A .parquet file", error) from None

    def save(path: Path, features: FloatArray, columns: Mapping[str, Any], about: str) -> None:
        rows = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
        table = pa.table({**{name: pa.array(values) for name, values in columns.items()}, "features": rows})
        parquet.write_table(table.replace_schema_metadata({"icsr": about}), path)

    return save


def _save_npz(path: Path, features: FloatArray, columns: Mapping[str, Any], about: str) -> None:
    with path.open("wb") as stream:
        np.savez(stream, features=features, about=np.array(about), **columns)


def renamed(pairs: Iterable[str]) -> dict[str, str]:
    """Give the name under which a file holds each array; ``pairs`` are NAME=KEY. Raises UsageError."""
    names, given = {name: name for name in ("features", *_COLUMNS, "paths")}, dict[str, str]()
    for pair in pairs:
        name, equals, key = pair.partition("=")
        if not equals or name not in names:
            raise UsageError(f"--key takes NAME=KEY with NAME one of {', '.join(names)}; got {pair!r}.")
        if name in given:
            raise UsageError(f"--key {name} is given twice: {given[name]} and {key}.")
        given[name] = key
    return names | given


def read_features(path: Path, names: Mapping[str, str]) -> Given:
    """Read an ``.npz`` of features whose arrays are called as ``renamed`` says.

    A name that ends in ``.npy`` is a file, which is mapped into memory, not read; so is ``path`` itself where
    it ends so: it holds the features, and the others come by names.

    Raises:
        UsageError: there is no such file.
        InputError: it is no ``.npz`` of plain arrays, or lacks one, or one does not fit.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give an .npz that holds an array `features` (n, d).")
    alone = path.suffix == ".npy"
    if alone and names["features"] != "features":
        raise UsageError(f"{path} holds the features alone: --key features={names['features']} names none.")
    arrays = {names["features"]: _mapped(path)} if alone else read_arrays(path, InputError, [*names.values()])
    arrays |= {key: _mapped(Path(key)) for key in names.values() if key.endswith(".npy")}
    for name, key in names.items():
        if key not in arrays and (name == "features" or key != name):
            raise InputError(
                f"{path} has no array {key!r}; it has {', '.join(arrays) or 'none'}. "
                f"Say which holds the {name} by --key {name}=NAME."
            )
    return _fitting(path, {name: arrays.get(key) for name, key in names.items()})


def _mapped(path: Path) -> Any:
    if not path.is_file():  # a pipe would be waited for
        raise UsageError(f"There is no file {path}.")
    try:
        return map_array(path)
    except ValueError as error:
        raise InputError(f"{error}. numpy.save(PATH, array) makes one.") from None


def _fitting(path: Path, arrays: Mapping[str, Any]) -> Given:
    table = arrays["features"]
    if table.ndim != 2:
        raise InputError(f"features must have shape (n, d) with n >= 1 and d >= 1, got {table.shape}.")
    n = len(table)
    columns = {name: _column(name, arrays[name], n) for name in _COLUMNS}
    if columns["local_labels"] is not None and columns["cameras"] is None:
        raise InputError(f"{path} has local labels and no `cameras`: they are numbered camera by camera.")
    paths = np.arange(n).astype(str) if arrays["paths"] is None else texts("paths", arrays["paths"])
    if paths.shape != (n,):
        raise InputError(f"paths must have shape ({n},), one for each row of features; got {paths.shape}.")
    check_distinct("the array paths", paths.tolist())
    return Given(table, **columns, paths=paths)


def _column(name: str, array: Any, n: int) -> IntArray | None:
    return None if array is None else whole_numbers(name, array, n, low=0 if name == "cameras" else None)
