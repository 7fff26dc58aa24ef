"""Typed settings and their one loader."""

from icsr_cli.config.loader import load
from icsr_cli.config.schema import Settings

__all__ = ["Settings", "load"]
