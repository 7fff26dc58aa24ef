"""The commands of docs/networks.md, typed as they stand."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from test_typed_commands import ROOT, SMALL, commands, type_in

from icsr_cli.models.backbones.timm import SHOWN
from icsr_cli.recipes import networks


@pytest.mark.slow
def test_the_page(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_root, "data")
    small = {**SMALL, "global": {key: value for key, value in SMALL["global"].items() if key != "model"}}
    Path("small.yaml").write_text(yaml.safe_dump(small | {"image": {"height": 32, "width": 16}}))
    monkeypatch.setenv("ICSR_CONFIG", "small.yaml")
    own = ("resnet18", "osnet_x0_25", "vit_small_ics", "solider_swin_tiny")  # those of a family are alike
    monkeypatch.setattr(networks, "available", lambda: own)
    shown = list(SHOWN)[-3:]
    monkeypatch.setattr(networks, "SHOWN", shown)
    every, one, *_ = type_in(commands((ROOT / "docs/networks.md").read_text(encoding="utf-8")))
    assert all(re.search(rf" {re.escape(name)} .* [1-9]", every) for name in (*own, *shown))
    assert json.loads(one)[0]["multiply_adds"] > 1e9
    assert "timm:test_vit" in Path("runs/tiny/global/vit/settings.yaml").read_text()
