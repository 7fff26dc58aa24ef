"""Typed settings and their one loader."""

from icsr_cli.config.loader import OF_THE_NETWORK, load, load_for, load_run, methods, parse_assignment
from icsr_cli.config.schema import Settings

__all__ = ["OF_THE_NETWORK", "Settings", "load", "load_for", "load_run", "methods", "parse_assignment"]
