"""The crops of the tiny world as a tracker would write them: a folder per camera, and one per track in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path


def write_tracks(
    rendered: Path, folder: Path, *, cameras: str = "123", part: str = "bounding_box_train"
) -> Path:
    """Copy the images under ``cameras`` to ``folder/CAMERA/TRACK/FRAME.jpg``; a track is a person's walk.

    The walks of the tiny world follow each other; taken modulo 500 frames some overlap.
    """
    for file in sorted((rendered / part).iterdir()):
        found = re.match(r"(\d+)_c(\d)s(\d+)_(\d+)_(\d+)", file.name)
        if found and found[2] in cameras and int(found[1]):
            target = folder / f"c{found[2]}" / f"t{found[1]}{found[3]}" / f"{int(found[4]) % 500:03}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return folder
