"""Train on crops of your own cameras from Python, look at the labels, and find a person.

    python examples/own_crops.py CROPS [--epochs 26] [--folder work]

CROPS holds one folder per camera. The same as ``icsr prepare folder``, ``icsr train`` and ``icsr search``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from icsr_cli import config, datasets
from icsr_cli.distances import normalise_cameras
from icsr_cli.features import extract
from icsr_cli.images.store import open_pixels
from icsr_cli.labelling import evidence_of, label
from icsr_cli.models import open_model
from icsr_cli.progress import Progress
from icsr_cli.recipes import opening
from icsr_cli.recipes.preparation import OwnCrops, prepare_folder
from icsr_cli.recipes.training import Workplace, run_global_stage
from icsr_cli.recipes.wish import Wish
from icsr_cli.runs import read_labels


def main(crops: Path, folder: Path, epochs: int, iters: int, size: tuple[int, int]) -> None:
    # 1. Every image is decoded once; from here on it is read from one file of pixels.
    data_root, progress = folder / "data", Progress()
    prepare_folder("own", crops, data_root, OwnCrops("{camera}/{name}"), size=size)
    dataset = datasets.load("own", data_root)
    print(f"{len(dataset.train):,} images, cameras {', '.join(dataset.camera_names)}")

    # 2. Train: the settings of a method, with what is changed of them by dotted keys.
    changed = {
        "global.model": {"arch": "resnet_small", "weights": "none"},  # "imagenet" with ICSR_DOWNLOAD=1
        "global.epochs": epochs,
        "global.iters": iters,
        "image": {"height": size[0], "width": size[1]},
    }
    run, settings = opening.start(dataset, "global", Wish(folder / "runs", options=changed), progress)
    run_global_stage(dataset, settings, run, Workplace(data_root, None, progress))

    # 3. What it was trained on in the end: a row for each image.
    table = read_labels(run.label_file(epochs))
    kept = table.labels >= 0
    print(f"{len(np.unique(table.labels[kept])):,} people found in {int(kept.sum()):,} images")

    # 4. Features float32 (n, d) of unit length; the nearest image of another camera than that of image 0.
    network = open_model(run.path / "last.safetensors")
    pixels = open_pixels(dataset.train, data_root / "own" / "pixels", *size, name="train")
    features = extract(network, pixels).numpy()
    features = normalise_cameras(features, dataset.train.cameras, "centre")
    distances = np.linalg.norm(features - features[0], axis=1)
    distances[dataset.train.cameras == dataset.train.cameras[0]] = np.inf
    nearest = dataset.train.records[int(distances.argmin())].path
    print(f"Nearest to {dataset.train.records[0].path} under another camera: {nearest}")

    # 5. The label engine alone, on any features: plain clustering, cameras unused.
    plain = config.load("", method="cluster-contrast").global_
    found = label(evidence_of(features, plain, cameras=dataset.train.cameras), plain)
    print(f"Plain clustering of these features: {found.labels.max() + 1:,} clusters, "
          f"{found.figures.get('camera_nmi', 0):.2f} of what they tell is the camera")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crops", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("work"))
    parser.add_argument("--epochs", type=int, default=26)
    parser.add_argument("--iters", type=int, default=40, help="steps of an epoch")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 128), help="height and width")
    given = parser.parse_args()
    main(given.crops, given.folder, given.epochs, given.iters, tuple(given.size))
