"""A method by its name: one file in its room, which holds its ``Options`` and what it does.

The setting ``{method: dbscan, eps: 0.5}`` of the room ``clusterers`` is the file ``clusterers/dbscan.py``:
its class ``Options`` checks the other keys, and its function ``cluster`` is handed an instance of them. So
a value of a setting knows its method, and a new method is one new file.

A file of one's own is a method too, where the command line says so (``load_plugin``), as is a module that an
installed package names among its entry points ``icsr.methods``. Which room it belongs to shows in what it
defines.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from icsr_cli.errors import UsageError, counted, did_you_mean, reason

#: What a method of each room defines beside its ``Options``.
ROOMS: Final = {
    "clusterers": "cluster",
    "distances": "similarity",
    "refiners": "refine",
    "memories": "Memory",
    "samplers": "batches",
    "optimizers": "build",
}
_LOG: Final = logging.getLogger("icsr")
_PLUGIN: Final = "icsr_plugin"
_plugins: dict[tuple[str, str], ModuleType] = {}


@dataclass(frozen=True)
class OrAuto:
    """Lets a setting be ``auto`` too: ``Annotated[float, Field(gt=0), OrAuto()]``.

    Not a union, whose faults would speak of its members.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda given, otherwise: given if given == "auto" else otherwise(given),
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )


class Keys(BaseModel):
    """Keys of settings with their values: frozen, unknown ones refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuse what Python would take for 1 and 0."""
        kind = repr(cls.model_fields[str(info.field_name)].annotation)
        values = given if isinstance(given, list | tuple) else (given,)
        if any(isinstance(one, bool) for one in values) and not re.search(r"\b(bool|Any)\b", kind):
            raise ValueError("yes and no (true, false, on, off) do not fit here")
        return given


class Options(Keys):
    """The settings of one method."""

    @property
    def method(self) -> str:
        """The name of the method: that of its file, with ``-`` for ``_``."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @property
    def module(self) -> Any:
        """The file the method lies in."""
        return sys.modules[type(self).__module__]

    @property
    def neighbours(self) -> int:
        """How many cosine neighbours of each image the method asks for; 0 for none."""
        return 0

    @property
    def least_similarity(self) -> float:
        """The smallest similarity of two images that can change what the method gives; 0: any can."""
        return 0.0

    @property
    def needs(self) -> frozenset[str]:
        """What the method reads beside features: ``cameras``, ``local``, ``tracks``.

        With ``cameras`` alone it tells cameras from each other: of one it makes nothing.
        """
        return frozenset()

    def faults(self, images: int) -> list[str]:
        """Say what does not fit a number of ``images``, by ``key: message``, before anything is computed."""
        return []

    def dump(self) -> dict[str, Any]:
        """Give the setting as plain values."""
        return {"method": self.method, **self.model_dump(mode="json")}


def too_large(images: int, **least: int) -> list[str]:
    """Say which keys want more images in a cluster than there are ``images``, by ``key: message``."""
    return [
        f"{key}: a cluster of {value:,} of {counted(images, 'image')}; all would be noise"
        for key, value in least.items()
        if value > images
    ]


@dataclass(frozen=True)
class Choice:
    """Annotates a setting that is a method of ``room``: ``Annotated[Options, Choice("clusterers")]``.

    ``default`` is the method where the setting names none.
    """

    room: str
    default: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        optional = type(None) in get_args(source)

        def read(given: Any) -> Options | None:
            return None if given is None and optional else self.read(given)

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda given: given and given.dump()
            ),
        )

    def read(self, given: Any) -> Options:
        """Turn ``NAME`` or ``{method: NAME, ...}`` into the options of that method."""
        if isinstance(given, Options):
            return given
        if isinstance(given, str):
            given = {"method": given}
        if not isinstance(given, dict):
            raise whole_fault(f"expected a method's name or its keys; got {given!r}")
        own = dict(given)
        try:
            module = find(self.room, str(own.pop("method", self.default)))
        except UsageError as error:
            raise whole_fault(str(error)) from None
        return _validated(module.Options, own)


def whole_fault(why: str) -> PydanticCustomError:
    """Make a fault of a setting whose message is complete: the value is not told beside it."""
    return PydanticCustomError("choice", "{why}", {"why": why})


def _validated(kind: type[Options], given: dict[str, Any]) -> Options:
    """Read the keys of a method; an unknown one names the nearest there is."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults: list[InitErrorDetails] = []
        for fault in error.errors():
            about: Any = {name: fault[name] for name in ("type", "loc", "input", "ctx") if name in fault}
            if fault["type"] == "extra_forbidden":
                about["type"] = whole_fault(unknown_key(str(fault["loc"][-1]), kind))
            faults.append(about)
        raise ValidationError.from_exception_data(error.title, faults) from None


def unknown_key(key: str, section: type[BaseModel], above: str = "") -> str:
    """Say that a section has no such key, and which comes nearest."""
    parts = {field.alias or name: field.annotation for name, field in section.model_fields.items()}
    below = [  # one section further down, the last first: global before cam
        f"{name}.{key}"
        for name, kind in reversed(parts.items())
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields
    ]
    near = [*below, *get_close_matches(key, parts, n=1, cutoff=0.4)]
    said = f"did you mean {above}{near[0]}?" if near else f"known: {', '.join(parts)}"
    return f"no such setting; {said}"


def available(room: str) -> tuple[str, ...]:
    """Name the methods of a room, sorted; no file of it is loaded."""
    _load_installed()
    return tuple(sorted(_of_the_package(room) | {name for where, name in _plugins if where == room}))


def _of_the_package(room: str) -> set[str]:
    folder = Path(__file__).parent / room
    files = (
        path for path in folder.glob("*.py") if re.search(r"^class Options\(", path.read_text("utf-8"), re.M)
    )
    return {path.stem.replace("_", "-") for path in files}


def find(room: str, name: str) -> Any:
    """Load the file of the method ``name`` of ``room``.

    Raises UsageError where there is none; the nearest is named.
    """
    wanted = name.replace("_", "-")
    if wanted not in available(room):
        hint = did_you_mean(wanted, available(room))
        raise UsageError(
            f"there is no {name!r} among the {room}; there are {', '.join(available(room))}.{hint}"
        )
    if (room, wanted) in _plugins:
        return _plugins[room, wanted]
    return importlib.import_module(f"icsr_cli.{room}.{wanted.replace('-', '_')}")


def about(room: str, name: str) -> str:
    """Give what the file of an ``available`` method says of itself; no file of the package is loaded."""
    if (room, name) in _plugins:
        module = _plugins[room, name]
        said = inspect.cleandoc(module.__doc__ or module.Options.__doc__ or "")
    else:
        path = Path(__file__).parent / room / f"{name.replace('-', '_')}.py"
        said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return said.replace("``", "`")


def load_plugin(path: Path) -> str:
    """Run a file of the user's and add its method; gives the SHA-256 of what was run.

    Raises UsageError where the file cannot be read or run, or is no method.
    """
    module, digest = run_plugin(path)
    _add(module, str(path))
    return digest


def run_plugin(path: Path) -> tuple[ModuleType, str]:
    """Run a file of the user's; gives the module and the SHA-256 of what was run.

    Raises UsageError where the file cannot be read or run.
    """
    try:
        source = path.read_bytes()
        name = f"{_PLUGIN}.{path.stem}"
        spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path)))  # of any suffix
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the command line asked for it
    except OSError as error:
        raise UsageError(f"The plug-in {path} cannot be read: {error.strerror}.") from None
    except (Exception, SystemExit) as error:  # one that ends the process would do so without a word
        raise UsageError(
            f"The plug-in {path} fails when it is loaded: {type(error).__name__}: {error}"
        ) from error
    return module, hashlib.sha256(source).hexdigest()


def plugin_fault(error: BaseException, *, perhaps: bool) -> str | None:
    """Say where a file of the user's failed; None where none did.

    ``perhaps``: where another one failed, say which were loaded: what they gave may be the cause.
    """
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).startswith(f"{_PLUGIN}."):
            place = f"{frame.f_code.co_filename} fails in line {line}"
    loaded = [str(each.__file__) for name, each in sys.modules.items() if name.startswith(f"{_PLUGIN}.")]
    unclear = perhaps and place is None and isinstance(error, Exception) and not isinstance(error, OSError)
    if unclear and loaded:
        place = f"{', '.join(loaded)} may have given something else than it should"
    return place and f"The plug-in {place}: {type(error).__name__}: {reason(error)}."


def _add(module: ModuleType, source: str) -> None:
    rooms = [room for room, offer in ROOMS.items() if callable(getattr(module, offer, None))]
    if len(rooms) != 1 or not hasattr(module, "Options"):
        offers = ", ".join(f"{offer} ({room})" for room, offer in ROOMS.items())
        raise UsageError(f"{source} is no method: it must define Options and one of {offers}.")
    own = module.Options
    if not (isinstance(own, type) and issubclass(own, Options) and own.__module__ == module.__name__):
        raise UsageError(
            f"{source} is no method: its Options must be a class of its own, and of choices.Options."
        )
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    other = _plugins.get((rooms[0], name), module)
    if name in _of_the_package(rooms[0]) or other.__name__ != module.__name__:  # a file that is run again may
        raise UsageError(
            f"{source} is called like a method that is there, {name} of the {rooms[0]}: rename it."
        )
    _plugins[rooms[0], name] = module


@cache
def _load_installed() -> None:
    """Add the methods of installed packages, once; one that cannot be used is left out, with a word."""
    for entry in entry_points(group="icsr.methods"):
        try:
            _add(entry.load(), f"The entry point {entry.name} of {entry.value}")
        except (Exception, SystemExit) as error:
            package = entry.dist.name if entry.dist else entry.value
            why = f"{type(error).__name__}: {reason(error)}"
            _LOG.warning("The method %s of the package %s is left out: %s.", entry.name, package, why)


def chosen(settings: BaseModel) -> Iterator[tuple[str, Options]]:
    """Give every method that ``settings`` name, with its dotted key."""
    for name, field in type(settings).model_fields.items():
        value, key = getattr(settings, name), field.alias or name
        if isinstance(value, Options):
            yield key, value
        elif isinstance(value, tuple):
            yield from ((f"{key}.{i}", item) for i, item in enumerate(value) if isinstance(item, Options))
        elif isinstance(value, BaseModel):
            yield from ((f"{key}.{below}", item) for below, item in chosen(value))
