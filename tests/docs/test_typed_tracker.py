"""The page from tracker to tracker, and the data set of one's own: typed as they stand, on small data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from test_typed_commands import ROOT, commands, home, rendered, type_in
from tracked_crops import write_tracks

from icsr_cli import datasets

__all__ = ["home", "rendered"]


def python_blocks(page: str) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S
    )


def test_from_tracker_to_tracker(home: Path, rendered: Path) -> None:
    save, match = python_blocks("tracker.md")
    tracker: dict[str, Any] = {}
    exec(save, tracker)
    write_tracks(rendered, home / "seen", cameras="12")
    for file in sorted((home / "seen").rglob("*.jpg")):
        camera, track, frame = file.relative_to(home / "seen").parts
        picture = np.asarray(Image.open(file))
        box = (int(track[1:]), -3, 0, picture.shape[1], picture.shape[0])
        tracker["save_crops"](picture, [box], camera, int(frame[:-4]))
    assert len(list((home / "crops").rglob("*.jpg"))) == len(list((home / "seen").rglob("*.jpg")))
    for file in (home / "crops").rglob("*.jpg"):
        assert re.fullmatch(r"c[12]/\d+/\d{8}\.jpg", file.relative_to(home / "crops").as_posix())
    write_tracks(rendered, home / "week2", cameras="3")
    type_in(commands((ROOT / "docs" / "tracker.md").read_text(encoding="utf-8")))
    shop = datasets.load("shop", home / "data")
    assert shop.camera_names == ("c1", "c2", "c3")
    assert shop.train.has_tracks
    assert (home / "labels.html").is_file()
    assert (home / "runs/shop/global/second/last.safetensors").is_file()
    exec(match, tracker)
    crops = [np.asarray(Image.open(shop.root / record.path)) for record in shop.train.records[:3]]
    feature = tracker["mean_feature"](crops)
    assert abs(np.linalg.norm(feature) - 1) < 1e-5
    assert tracker["same_person"](feature, []) is None
    assert tracker["same_person"](feature, [-feature, feature]) == 1
    assert tracker["same_person"](feature, [-feature]) is None


def test_a_data_set_of_ones_own(home: Path, rendered: Path) -> None:
    """The file of the page, as it stands there, on crops in the layout that it reads."""
    page = (ROOT / "docs" / "write_your_own.md").read_text(encoding="utf-8")
    own = page[page.index("## A data set") :]
    [content] = re.findall(r"^The file `corridor\.py`.*?^```python\n(.*?)^```", own, re.M | re.S)
    (home / "corridor.py").write_text(content, encoding="utf-8")
    for part, folder in (("bounding_box_train", "a"), ("query", "b"), ("bounding_box_test", "c")):
        (home / "crops" / folder).mkdir(parents=True)
        for number, file in enumerate(sorted((rendered / part).glob("0*.jpg"))):
            found = re.match(r"(\d+)_c(\d)s", file.name)
            assert found
            shutil.copy(file, home / "crops" / folder / f"p{found[1]}-k{found[2]}-{number:06}.jpg")
    [lines] = re.findall(r"^```sh\n(.*?)^```", own, re.M | re.S)
    type_in(lines.splitlines())
    data = datasets.load("corridor", home / "data")
    assert (data.layout, len(data.train), data.n_cameras) == ("plugin", 48, 3)
    [run] = home.glob("runs/corridor/global/*/settings.yaml")
    assert "height: 32" in run.read_text()
