"""Settings from layers of plain values, the later winning; every fault in one report.

The layers: what the schema says, the data set's own settings, the method's file, the data set's for this
method, a file of the user's, options of the command, ``a.b=c`` assignments.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from icsr_cli.choices import chosen, unknown_key
from icsr_cli.config.old_form import upgrade
from icsr_cli.config.schema import CamSettings, GlobalSettings, Settings
from icsr_cli.errors import UsageError, did_you_mean
from icsr_cli.files import regular
from icsr_cli.plain_yaml import flat, parse_yaml
from icsr_cli.types import Dataset

Tree = dict[str, Any]
Note = Callable[[str], None]
_METHODS = Path(__file__).parent / "methods"


def load(
    dataset: str,
    *,
    config: Path | None = None,
    content: bytes | None = None,
    family: str | None = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    beneath: Tree | None = None,
    own: Mapping[str, Any] | None = None,
    images: Mapping[str, int] | None = None,
    note: Note = lambda message: None,
) -> Settings:
    """Resolve the settings for ``dataset``.

    Args:
        dataset: its name; a published data set has settings of its own.
        family: whose settings another has: ``synthetic`` or ``folder``.
        config: a settings file of the user's, partial or empty; it may name a ``method``.
        content: what it holds, where that was read before.
        method: one of ``methods()``; default: what ``config`` says, else the data set.
        options: dotted keys with values; None says nothing.
        assignments: ``key.key=value`` strings.
        beneath: settings that give way to those of the user's only.
        own: the settings of the data set, where they were kept with it; default: those of its name or family.
        images: how many images a stage trains on (``cam``, ``global``): what cannot fit them is a fault.
        note: is told of keys in the form they had before.

    Raises:
        UsageError: with one line per fault: the key, the file or option it came from, the nearest right
            key.
    """
    of_data = dict(own or import_module("icsr_cli.datasets").settings(dataset, family))
    by_method = of_data.pop("methods", {})
    mine = read_yaml(config, content) if config else {}
    named = (method, mine.get("method"), of_data.get("method"), "icsr")
    name = str(next(one for one in named if one is not None))
    layers = [
        (of_data, f"the settings of {dataset}"),
        (_method_file(name), f"the method {name}"),
        (by_method.get(name, {}), f"the settings of {dataset} for {name}"),
        (beneath or {}, "the run it begins from"),
        (mine, str(config)),
        *_given(options, assignments),
    ]
    for layer, source in layers[4:]:
        if (said := layer.get("method")) not in (None, name):
            raise UsageError(
                f"{source} says the method {said}, but it is {name} here. Say --method {said}, or leave "
                "`method` out there."
            )
    for layer, source in layers[5:]:
        if (said := layer.get("dataset", dataset)) != dataset:
            raise UsageError(f"{source}: the data set is {dataset} here; -d {said} chooses another.")
    return _resolve(layers, {"dataset": dataset, "method": name}, images, note)


def load_for(data: Dataset, **asked: Any) -> Settings:
    """Resolve the settings for a data set that is prepared; ``asked`` as of ``load``."""
    return load(data.name, family=data.layout, own=data.settings, **asked)


#: What a network of a run is looked at by; how it was trained may be a method that is not here.
OF_THE_NETWORK = ("precision", "image", "evaluation")


def load_run(
    path: Path,
    *,
    sections: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> Settings:
    """Read the settings of a run, which are whole, and what the command line says beside them.

    ``sections``: those that are wanted, or parts of them (``global.model``); the methods that others name
    need not be there. Raises UsageError as ``load`` does.
    """
    try:
        tree = read_yaml(regular(path))
    except OSError as error:
        raise UsageError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    kept = tree if sections is None else _parts(tree, sections)
    return _resolve([(kept, str(path)), *_given(options, assignments)], {}, None, lambda message: None)


def _parts(tree: Tree, sections: Iterable[str]) -> Tree:
    found: Tree = {}
    for section in sections:
        key, _, part = section.partition(".")
        own = tree.get(key)
        if part and isinstance(own, dict):
            own = {name: value for name, value in own.items() if name == part}
        found |= {key: own} if key in tree else {}
    return found


@dataclass(frozen=True)
class Method:
    """What the first lines of a method's file say: what it is, with paper and needs, its worth, its cost."""

    about: str
    worth: str
    cost: str


def methods() -> dict[str, Method]:
    """Name the methods that come with the package, with what their files say of them."""
    found = {}
    for path in sorted(_METHODS.glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        said = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
        found[path.stem] = Method(*re.split(" (?:Worth|Cost): ", said))
    return found


def _resolve(
    layers: Iterable[tuple[Tree, str]], last: Tree, images: Mapping[str, int] | None, note: Note
) -> Settings:
    tree: Tree = {}
    sources: dict[str, str] = {}
    for given, source in layers:
        layer, moved = upgrade(given)
        for line in moved:
            note(f"{source}: {line}")
        _merge(tree, layer)
        said = dict.fromkeys((key for key, _ in flat(layer)), source)
        sources = {key: where for key, where in sources.items() if key not in said} | said
    return _validate(tree | last, sources, images)


def _validate(tree: Tree, sources: Mapping[str, str], images: Mapping[str, int] | None) -> Settings:
    """Turn a tree of plain values into ``Settings``, or raise one ``UsageError`` with every fault."""
    faults = []
    try:
        settings = Settings.model_validate(tree)
        for key, method in chosen(settings):
            count = (images or {}).get(key.partition(".")[0])
            faults += [f"{key}.{fault}" for fault in method.faults(count)] if count is not None else []
    except ValidationError as error:
        # A default that needs another setting is not made where that one is at fault.
        own = [fault for fault in error.errors() if fault["type"] != "default_factory_not_called"]
        faults = [_describe(fault) for fault in own]
    if faults:
        lines = [f"  - {_with_source(fault, sources)}" for fault in dict.fromkeys(faults)]
        raise UsageError("Settings that do not fit:\n" + "\n".join(lines))
    return settings


def read_yaml(path: Path, content: bytes | None = None) -> Tree:
    """Read a mapping from a YAML file, or its ``content``; UsageError names the file where it is none."""
    try:
        tree = parse_yaml((path.read_bytes() if content is None else content).decode())
    except FileNotFoundError:
        raise UsageError(
            f"There is no settings file {path}. Copy one that comes with icsr: {_METHODS}."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"The settings file {path} cannot be read as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"The settings file {path} holds a {type(tree).__name__}, not keys with values.")
    return tree


def _method_file(name: str) -> Tree:
    path = _METHODS / f"{name}.yaml"
    if not path.is_file():
        hint = did_you_mean(name, methods())
        raise UsageError(f"There is no method {name!r}; there are {', '.join(methods())}.{hint}")
    return read_yaml(path)


def _given(options: Mapping[str, Any] | None, assignments: Iterable[str]) -> Iterator[tuple[Tree, str]]:
    """Give a layer for each option that is not None, and each assignment, of the command line."""
    for key, value in (options or {}).items():
        if value is not None:
            yield _branch(key, value), "the command line"
    for assignment in assignments:
        yield _branch(*parse_assignment(assignment)), f"--set {assignment}"


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """Read what ``--set`` says: a key, and its value in YAML. Raises UsageError."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes key=value, for instance --set seed=2; got {assignment!r}.")
    try:
        return key.strip(), parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"--set {assignment} cannot be read: {error}.") from None


def _branch(key: str, value: Any) -> Tree:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


#: The method of a choice that names none, by its dotted key.
_UNNAMED = {
    f"{stage}.{key}": field.default
    for stage, section in (("cam", CamSettings), ("global", GlobalSettings))
    for key, field in section.model_fields.items()
}


def _merge(tree: Tree, layer: Tree, above: str = "") -> None:
    """Lay ``layer`` over ``tree``. A choice that names another method drops the keys of the former one.

    ``memory.0.weight`` reaches into a list, as does ``memory.weight`` where it has one item.
    """
    for key, value in layer.items():
        below = tree.get(key)
        if isinstance(value, dict) and isinstance(below, str):  # a choice by its name alone
            below = tree[key] = {"method": below}
        if isinstance(value, dict) and isinstance(below, list) and "method" not in value:
            tree[key] = _merge_into_list(key, below, value)
            continue
        former = below.get("method", _UNNAMED.get(f"{above}{key}")) if isinstance(below, dict) else None
        if isinstance(value, dict) and isinstance(below, dict) and value.get("method", former) == former:
            _merge(below, value, f"{above}{key}.")
        else:
            tree[key] = deepcopy(value)


def _merge_into_list(key: str, below: list[Any], value: Tree) -> list[Any]:
    """Lay keys over the items that they number; over the one item, where there is one."""
    numbered = all(str(part).isdecimal() for part in value)
    items = {int(part): item for part, item in value.items()} if numbered else {0: value}
    if (not numbered and len(below) != 1) or max(items, default=0) >= len(below):
        whole = "give it whole" + (", or name some first (--refine NAME)" if key == "refiners" else "")
        last = f" to {key}.{len(below) - 1}" if len(below) > 1 else ""
        which = f"say which is meant, {key}.0{last}" if below else whole
        raise UsageError(f"{key} is a list of {len(below)}: {which}.")
    tree = dict(enumerate(below))
    _merge(tree, items)  # type: ignore[arg-type]
    return list(tree.values())


def _describe(fault: Any) -> str:
    """Give ``key: message``; a message of our own is complete, one of pydantic's needs the value."""
    # Where a setting may be of several kinds, pydantic puts the kind into the key: ``literal[...]``.
    key = ".".join(str(part) for part in fault["loc"] if "[" not in str(part))
    if fault["type"] == "extra_forbidden":
        *above, last = fault["loc"]
        dotted = "".join(f"{part}." for part in above)
        return f"{key}: {unknown_key(str(last), _section(tuple(above)), dotted)}"
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    if fault["type"] == "choice":
        return f"{key}: {fault['msg']}"
    return f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}; got {fault['input']!r}"


def _with_source(fault: str, sources: Mapping[str, str]) -> str:
    """Put behind the key where its value came from, where that is known."""
    key, colon, rest = fault.partition(":")
    near = [
        name
        for name in reversed(list(sources))
        if name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.")
    ]
    words = re.findall(r"\w+", rest)  # of a section's fault: the settings in it that the fault names
    meant = [name for name in near if name == key or name.removeprefix(f"{key}.") in words] or near
    source = sources[meant[0]] if meant else ""
    return f"{key} ({source}){colon}{rest}" if source else fault


def _section(location: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Settings
    for part in location:
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        below: Any = fields[str(part)].annotation
        assert issubclass(below, BaseModel)
        section = below
    return section
