"""YAML as it is used for settings: plain values, small, without tricks."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from icsr_cli.errors import reason

#: Deeper than any settings, and far from what a parser that calls itself can bear.
_DEEPEST: Final = 40
_LONGEST_FILE: Final = 1 << 20
_LONGEST_NUMBER: Final = 100


#: The parser in C, where PyYAML was built with it: settings are read often.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Parser):  # type: ignore[misc]
    """A key that stands twice is a fault: one of its values would be forgotten."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen: list[Any] = []
        for key, (place, _) in zip(keys, node.value, strict=True):
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice, again in line {place.start_mark.line + 1}")
            seen.append(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts quotes where a name would be read as a number."""


for _kind in (_Loader, _Dumper):  # YAML 1.1 takes 1e-4 for a word, YAML 1.2 and everyone else for a number
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def format_yaml(values: Mapping[str, Any]) -> str:
    """Write plain values so that :func:`parse_yaml` gives them back, their keys in their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str) -> Any:
    """Give the plain values of one YAML document.

    Raises:
        ValueError: it is no YAML, or more than settings need: too long, nested too deeply, with aliases, with
            numbers of many digits, with a key that stands twice. The message is one line.
    """
    if len(text) > _LONGEST_FILE:
        raise ValueError(f"it is longer than {_LONGEST_FILE:,} characters")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Parser):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line + 1 if event.start_mark else 0
            if depth > _DEEPEST:
                raise ValueError(f"line {line} is nested more than {_DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {line} has an alias (*{event.anchor}); write out what it stands for")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_NUMBER:
                digits = event.value.replace("_", "").lstrip("+-")
                if digits[:1].isdigit() and all(
                    character in "0123456789abcdefxo.:" for character in digits.lower()
                ):
                    raise ValueError(f"line {line} has a number of {len(digits)} digits")
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except Exception as error:  # PyYAML raises many kinds for a value that is not of its tag: !!bool x
        raise ValueError(f"a value does not fit its tag ({reason(error)})") from None


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each dotted key with its value."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
