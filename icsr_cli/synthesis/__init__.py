"""Pedestrians drawn procedurally: a data set for several cameras with nothing to download."""

from icsr_cli.synthesis.rendering import draw, render, tracks_of
from icsr_cli.synthesis.world import PRESETS, World

__all__ = ["PRESETS", "World", "draw", "render", "tracks_of"]
