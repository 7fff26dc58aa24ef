"""The settings of a run as they are read side by side: dotted keys, and what their values say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def by_method(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give dotted keys with texts: a choice as its methods, and their options under the methods' names.

    ``global.clusterer`` is ``dbscan``, ``global.clusterer.dbscan.eps`` is ``0.5``: options stand side by
    side where two runs chose the same method.
    """
    for key, value in tree.items():
        chosen = _choices(value)
        if chosen is not None:
            yield f"{prefix}{key}", ", ".join(one["method"] for one in chosen) or "none"
            for one in chosen:
                options = {name: option for name, option in one.items() if name != "method"}
                yield from by_method(options, f"{prefix}{key}.{one['method']}.")
        elif isinstance(value, Mapping):
            yield from by_method(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", said(value)


def _choices(value: Any) -> list[Mapping[str, Any]] | None:
    """Give the methods with their options, where a value is such a choice or a list of them."""
    several = value if isinstance(value, list) else [value]
    return several if all(isinstance(one, Mapping) and "method" in one for one in several) else None


def said(value: Any) -> str:
    """Write a value as it is read."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(one)}" for key, one in value.items())
    return ", ".join(said(item) for item in value) or "none" if isinstance(value, list) else str(value)
