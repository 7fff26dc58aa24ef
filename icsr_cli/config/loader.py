"""Settings from a YAML file, then options, then ``a.b=c`` assignments; every fault in one report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from icsr_cli.config.schema import Settings
from icsr_cli.errors import UsageError

Tree = dict[str, Any]


def load(
    dataset: str,
    *,
    config: Path | None = None,
    family: str | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> Settings:
    """Resolve the settings for ``dataset``.

    The file is ``config``, else the one that comes with the data set's name, else with ``family``
    (``synthetic``, ``folder``). ``options`` are dotted keys with values, ``assignments`` are
    ``key.key=value`` strings; the later wins.

    Raises:
        UsageError: with one line per fault: the key, the file or option it came from, the nearest
            right key.
    """
    path = config or _packaged(dataset) or _packaged(family or "folder")
    assert path is not None, "folder.yaml comes with the package"
    tree = read_yaml(path)
    sources = {key: str(path) for key in _leaves(tree)}
    for key, value in (options or {}).items():
        _assign(tree, key, value)
        sources[key] = "the command line"
    for assignment in assignments:
        key, value = _parse_assignment(assignment)
        _assign(tree, key, value)
        sources[key] = f"--set {assignment}"
    tree["dataset"] = dataset
    return validate(tree, sources, default_source=str(path))


def validate(tree: Tree, sources: Mapping[str, str], *, default_source: str) -> Settings:
    """Turn a tree of plain values into ``Settings``, or raise one ``UsageError`` with every fault."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        faults = [_describe(fault, sources, default_source) for fault in error.errors()]
        raise UsageError(
            "Settings that do not fit:\n" + "\n".join(f"  - {line}" for line in faults)
        ) from None


def read_yaml(path: Path) -> Tree:
    """Read a mapping from a YAML file; UsageError names the file where it is none."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"There is no settings file {path}. The ones that come with icsr: {', '.join(packaged_names())}."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"The settings file {path} cannot be read as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"The settings file {path} holds a {type(tree).__name__}, not keys with values.")
    return tree


def packaged_names() -> tuple[str, ...]:
    """Names of the settings files that come with the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def _folder() -> Path:
    # In the wheel the files are beside the package's code; in a checkout they are in its root.
    inside = Path(str(resources.files("icsr_cli"))) / "configs"
    return inside if inside.is_dir() else inside.parent.parent / "configs"


def _packaged(name: str) -> Path | None:
    path = _folder() / f"{name}.yaml"
    return path if path.is_file() else None


def _parse_assignment(assignment: str) -> tuple[str, Any]:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"--set takes key=value, for instance --set cam.optimizer.lr=0.001; got {assignment!r}."
        )
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError:
        return key.strip(), text


def _assign(tree: Tree, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    branch = tree
    for parent in parents:
        below = branch.get(parent)
        if not isinstance(below, dict):
            below = branch[parent] = {}
        branch = below
    branch[leaf] = value


def _leaves(tree: Tree, prefix: str = "") -> Iterable[str]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        else:
            yield name


def _describe(fault: Any, sources: Mapping[str, str], default_source: str) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    source = next(
        (where for name, where in reversed(list(sources.items())) if name.startswith(key)), default_source
    )
    if fault["type"] == "extra_forbidden":
        known = _keys_beside(fault["loc"])
        near = get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.4)
        prefix = key.rpartition(".")[0]
        hint = (
            f"did you mean {f'{prefix}.' if prefix else ''}{near[0]}?"
            if near
            else f"known: {', '.join(known)}"
        )
        return f"{key} ({source}): no such setting; {hint}"
    if fault["type"] == "value_error":
        return f"{key} ({source}): {fault['ctx']['error']}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key} ({source}): {message}; got {fault['input']!r}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Settings
    for part in location[:-1]:
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        section = fields[str(part)].annotation
    assert issubclass(section, BaseModel)
    return [field.alias or name for name, field in section.model_fields.items()]
