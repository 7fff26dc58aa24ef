"""Commands within the process of the test."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from icsr_cli.cli.main import app


def icsr(*arguments: object) -> Result:
    """Type ``icsr`` and its arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
