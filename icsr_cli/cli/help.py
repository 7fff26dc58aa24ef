"""How help looks: options in groups, two columns, 80 characters."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

#: The first column, at the most; what is wider has its explanation below.
_WIDE = 30


class _Command(TyperCommand):
    """A command whose options stand in their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is None:
                continue
            default = "Arguments" if param.param_type_name == "argument" else "Options"
            groups.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(record)
        own = len(groups["Options"]) > 1  # else there is --help alone
        order = ["Arguments", "Options", *groups] if own else ["Arguments", *groups]
        for title, records in ((title, groups.pop(title)) for title in order if title in groups):
            with formatter.section(title):
                formatter.write_dl(records, col_max=_WIDE)


class Commands(typer.Typer):
    """A Typer whose commands show their options in groups."""

    def __init__(self, **options: Any) -> None:
        super().__init__(rich_markup_mode=None, pretty_exceptions_enable=False, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Register a command as ``typer.Typer.command`` does."""
        return super().command(name, **{"cls": _Command, **options})
