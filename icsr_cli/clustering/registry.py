"""Clusterers by name. A new one is one new file in this folder.

A clusterer's file ``some_name.py`` holds a function of that name, whose first parameter is a sparse
similarity or the neighbours and whose further parameters all have defaults, and a constant ``INPUT``,
``"similarity"`` or ``"neighbours"``, that says which. Its registered name is ``some-name``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from icsr_cli.errors import UsageError
from icsr_cli.types import IntArray


@dataclass(frozen=True)
class Clusterer:
    """One way to turn a similarity, or neighbours, into labels.

    ``takes`` says what ``function`` wants as its first argument; ``options`` holds the names and
    defaults of its other parameters.
    """

    name: str
    function: Callable[..., IntArray]
    takes: Literal["similarity", "neighbours"]
    options: Mapping[str, Any]

    def __call__(self, given: Any, **options: Any) -> IntArray:
        """Cluster: int64 (n,), -1 for noise."""
        return self.function(given, **options)

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options before any work is done.

        Raises:
            UsageError: an option this clusterer has not (the nearest it has is named); or none given
                where all are None by default, so that it would not know what to do.

        """
        for name in options:
            if name not in self.options:
                near = difflib.get_close_matches(name, self.options, n=1, cutoff=0.4)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise UsageError(
                    f"{self.name} has no option {name!r}; it has {', '.join(self.options)}.{hint}"
                )
        if all(value is None for value in {**self.options, **options}.values()):
            raise UsageError(f"{self.name} needs one of its options: {' or '.join(self.options)}.")


def available() -> tuple[str, ...]:
    """Give the names of all clusterers, sorted."""
    return tuple(sorted(_found()))


def clusterer(name: str) -> Clusterer:
    """Give the clusterer of that name, or raise a UsageError that lists the names there are."""
    found = _found()
    wanted = name.replace("_", "-")
    if wanted not in found:
        near = difflib.get_close_matches(wanted, found, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"There is no clusterer {name!r}; there are {', '.join(sorted(found))}.{hint}")
    return found[wanted]


@cache
def _found() -> dict[str, Clusterer]:
    found = {}
    for entry in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if entry.name.startswith("_") or entry.name == "registry":
            continue
        module = importlib.import_module(f"{__package__}.{entry.name}")
        if not hasattr(module, "INPUT"):
            continue
        function = getattr(module, entry.name)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        name = entry.name.replace("_", "-")
        options = {parameter.name: parameter.default for parameter in parameters}
        found[name] = Clusterer(name, function, module.INPUT, options)
    return found
