"""Typed settings and their one loader."""

from icsr_cli.config.loader import load, load_run, methods
from icsr_cli.config.schema import Settings

__all__ = ["Settings", "load", "load_run", "methods"]
