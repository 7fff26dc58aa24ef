"""The dials: presets, files of dials, and every bad dial."""

from __future__ import annotations

import json

import pytest

from icsr_cli.errors import InputError
from icsr_cli.synthesis import PRESETS, World


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_its_own_file(name):
    world = World.preset(name, seed=7)
    assert World(**json.loads(world.to_json())["world"]) == world


def test_preset_takes_dials():
    world = World.preset("hard", height=32, images=[1, 2])
    assert (world.height, world.images) == (32, (1, 2))
    assert world.background == PRESETS["hard"]["background"]


@pytest.mark.parametrize(
    ("dials", "part"),
    [
        ({"train_identities": -1}, "train_identities is -1"),
        ({"train_identities": 0, "test_identities": 0}, "nobody"),
        ({"train_identities": 9000, "test_identities": 1000}, "four digits"),
        ({"cameras": 0}, "cameras is 0"),
        ({"cameras": True}, "cameras is True"),
        ({"cameras": 2.0}, "cameras is 2.0"),
        ({"images": (3, 2)}, "images is (3, 2)"),
        ({"images": (0, 2)}, "images is (0, 2)"),
        ({"images": 3}, "images is 3"),
        ({"cameras_per_person": (1, 2, 3)}, "cameras_per_person"),
        ({"height": 8}, "height is 8"),
        ({"width": 4}, "width is 4"),
        ({"seed": -1}, "seed is -1"),
        ({"queries": -2}, "queries is -2"),
        ({"background": -0.1}, "background is -0.1"),
        ({"camera_shift": 4.5}, "camera_shift is 4.5"),
        ({"blur": float("nan")}, "blur is nan"),
        ({"noise": "much"}, "noise is 'much'"),
        ({"occlusion": 1.5}, "occlusion is 1.5"),
        ({"distractors": 1.5}, "distractors is 1.5"),
    ],
)
def test_bad_dial_is_named(dials, part):
    with pytest.raises(InputError) as caught:
        World(**dials)
    assert part in str(caught.value)


def test_all_faults_come_at_once():
    with pytest.raises(InputError, match="height") as caught:
        World(height=1, background=-1, occlusion=2)
    assert "background" in str(caught.value)
    assert "occlusion" in str(caught.value)


def test_unknown_preset_and_dial():
    with pytest.raises(InputError, match="default, hard, city, easy"):
        World.preset("nightmare")
    with pytest.raises(InputError, match="'fog'"):
        World.preset("default", fog=1)
