"""What another resize than that of training costs: cosine of the features to those of the right resize.

Renders people large (256 x 128), shrinks each crop to 1, 2 and 4 times the network's size, and from there to
the network's size in several ways.

    python benchmarks/resize.py runs/demo/global/RUN
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from icsr_cli.features import extract
from icsr_cli.models import open_model, read_metadata
from icsr_cli.synthesis import World, render

WAYS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run, or weights that say their size")
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    weights = options.run / "best.safetensors" if options.run.is_dir() else options.run
    network, header = open_model(weights).eval(), read_metadata(weights)
    size = int(header["width"]), int(header["height"])
    with tempfile.TemporaryDirectory() as folder:
        world = World.preset("hard", seed=99, train_identities=20, test_identities=4, height=256, width=128)
        render(Path(folder) / "world", world, workers=2)
        files = sorted((Path(folder) / "world" / "bounding_box_train").iterdir())[: options.images]
        large = [Image.open(file).convert("RGB") for file in files]
    print(f"{len(large)} crops, {weights}; cosine: mean (least)\n")
    print("| crop | " + " | ".join(f"cv2 {way}" for way in WAYS) + " |")
    print("| --- |" + " ---: |" * len(WAYS))
    for times in (1, 2, 4):
        crops = [
            image.resize((size[0] * times, size[1] * times), Image.Resampling.BICUBIC) for image in large
        ]
        right = extract(network, np.stack([crop.resize(size, Image.Resampling.BICUBIC) for crop in crops]))
        cells = []
        for way in WAYS.values():
            resized = np.stack([cv2.resize(np.asarray(crop), size, interpolation=way) for crop in crops])
            cosine = (extract(network, resized) * right).sum(dim=1)
            cells.append(f"{cosine.mean():.3f} ({cosine.min():.3f})")
        print(f"| {times} x | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
