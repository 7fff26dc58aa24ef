"""How hard the synthetic worlds are, before any training, and how fast they are drawn.

For every preset, and for a base world (all strengths at 1) with one dial off or turned up, prints

* near, far: the share of images whose nearest neighbour (of all images of the same camera; of all images
  of other cameras) shows the same person, by colour histograms as they are;
* histogram: retrieval mAP by those histograms, each camera's mean taken off them (in brackets: each
  camera's mean and spread made equal); the gallery holds the distractors, the junk is left out;
* untrained: retrieval mAP of a small network with random weights.

    python benchmarks/synthetic.py                                   # some minutes on one core
    python benchmarks/synthetic.py --speed --pictures docs/images    # also these
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from colours import colour_features, colour_histograms, neighbour_shares
from PIL import Image

from icsr_cli.metrics import rank
from icsr_cli.models import build
from icsr_cli.synthesis import World, draw, render
from icsr_cli.synthesis.passes import plan
from icsr_cli.types import BoolArray, FloatArray, IntArray

#: Each dial of the base world, and its turns: off, up.
DIALS: dict[str, tuple[float, float, float]] = {
    "background": (1.0, 0, 3),
    "camera_shift": (1.0, 0, 2),
    "blur": (1.0, 0, 2),
    "noise": (1.0, 0, 2),
    "resolution": (1.0, 0, 2),
    "crop_jitter": (1.0, 0, 2),
    "occlusion": (0.05, 0, 0.3),
    "view_spread": (0.25, 0, 1),
    "garment_similarity": (0.95, 0.5, 1),
    "second_pass": (0.0, 0, 1),
    "separation": (0.0, 0, 1),
    "lookalikes": (0.0, 0, 0.6),
    "uneven": (0.0, 0, 0.9),
}
#: The world whose dials are turned one by one.
BASE: dict[str, Any] = {dial: base for dial, (base, *_) in DIALS.items()}

#: Presets of the picture of crowds, and how many wrong detections it shows of each camera.
CROWDS = {"separate": 0, "metro": 4}


@dataclass(frozen=True)
class Images:
    """A drawn world: pixels uint8 (n, h, w, 3), and what the names say."""

    pixels: npt.NDArray[np.uint8]
    identities: IntArray
    cameras: IntArray
    query: BoolArray
    gallery: BoolArray

    def select(self, rows: BoolArray) -> Images:
        """Give the images at ``rows``."""
        return Images(*(getattr(self, field.name)[rows] for field in fields(self)))


def drawn(world: World) -> Images:
    names, pixels = draw(world)
    folders = np.array([name.split("/")[0] for name in names])
    files = [name.split("/")[1] for name in names]
    identities = np.array([int(file.split("_")[0]) for file in files])
    cameras = np.array([int(file.split("_c")[1].split("s")[0]) - 1 for file in files])
    gallery = (folders == "bounding_box_test") & (identities >= 0)
    return Images(pixels, identities, cameras, folders == "query", gallery)


def retrieval(features: FloatArray, images: Images) -> float:
    q, g = images.query, images.gallery
    people, cameras = images.identities, images.cameras
    return rank(features[q], features[g], people[q], people[g], cameras[q], cameras[g]).mAP


@torch.no_grad()
def untrained(pixels: npt.NDArray[np.uint8], seed: int) -> FloatArray:
    network = build("resnet_small", stripes=4, seed=seed).eval()
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    parts = []
    for first in range(0, len(pixels), 256):
        batch = ((pixels[first : first + 256] / 255 - mean) / spread).transpose(0, 3, 1, 2)
        parts.append(network(torch.from_numpy(batch.astype(np.float32))).numpy())
    return np.concatenate(parts)


def measured(world: World) -> dict[str, float]:
    images = drawn(world)
    images = images.select(images.query | images.gallery)
    pixels, cameras = images.pixels, images.cameras
    people = images.select(images.identities > 0)
    near, far = neighbour_shares(colour_histograms(people.pixels), people.identities, people.cameras)
    return {
        "near": near,
        "far": far,
        "histogram": retrieval(colour_features(pixels, cameras), images),
        "equalised": retrieval(colour_features(pixels, cameras, equalise=True), images),
        "untrained": retrieval(untrained(pixels, world.seed), images),
    }


def line(title: str, preset: str, seeds: list[int], **dials: Any) -> str:
    figures = [measured(World.preset(preset, seed=seed, **dials)) for seed in seeds]
    values = {name: 100 * np.array([figure[name] for figure in figures]) for name in figures[0]}
    mean = {name: value.mean() for name, value in values.items()}
    return (
        f"| {title} | {mean['near']:.1f} | {mean['far']:.1f} | {mean['histogram']:.1f} "
        f"({mean['equalised']:.1f}) | {mean['untrained']:.1f} ({values['untrained'].min():.1f} to "
        f"{values['untrained'].max():.1f}) |"
    )


def table(seeds: list[int]) -> None:
    print(f"Percent, mean of seeds {', '.join(map(str, seeds))}; 64 x 32 pixels\n")
    print("| world | near | far | histogram | untrained |\n| --- | --- | --- | --- | --- |")
    for preset in ("easy", "default", "hard", "city", "separate", "metro"):
        print(line(preset, preset, seeds), flush=True)
    print(line("base", "default", seeds, **BASE), flush=True)
    for dial, (base, *turns) in DIALS.items():
        for value in turns:
            if value != base:
                print(line(f"base, {dial} {value:g}", "default", seeds, **{**BASE, dial: value}), flush=True)


def speed() -> None:
    print("\n| images | size | workers | drawn and written in |\n| --- | --- | --- | --- |")
    for preset, workers in (("default", 1), ("market1501", 2)):
        world = World.preset(preset)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            render(Path(folder) / "out", world, workers=workers)
            seconds = time.perf_counter() - started
            count = sum(1 for _ in Path(folder).rglob("*.jpg"))
        size = f"{world.height} x {world.width}"
        print(f"| {count} | {size} | {workers} | {seconds:.1f} s |", flush=True)
    world = World.preset("default")
    started = time.perf_counter()
    count = len(draw(world)[0])
    seconds = time.perf_counter() - started
    print(f"| {count} | 64 x 32 | 1 | {seconds:.1f} s (drawn only) |")


def sheet(world: World, people: int, frames: int) -> npt.NDArray[np.uint8]:
    """Give one row per person, ``frames`` images from each camera beside each other."""
    images = drawn(world)
    white = np.full(images.pixels.shape[1:], 255, np.uint8)
    rows = []
    for person in np.unique(images.identities[images.identities > 0])[:people]:
        row = []
        for camera in range(world.cameras):
            found = np.flatnonzero((images.identities == person) & (images.cameras == camera))[:frames]
            row += [images.pixels[place] for place in found] + [white] * (frames - len(found))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def by_camera(world: World, cameras: int, people: int, clutter: int) -> npt.NDArray[np.uint8]:
    """Give one row per camera: ``people`` of the training half, once each, then ``clutter`` detections."""
    content, (_, pixels) = plan(world), draw(world)
    shots, nobody = content.shots, content.tracks < 0
    white = np.full(pixels.shape[1:], 255, np.uint8)
    rows = []
    for camera in range(cameras):
        here = (shots["camera"] == camera) & (shots["person"] < world.train_identities)
        once = np.unique(shots["person"][here & ~nobody], return_index=True)[1][:people]
        row = [pixels[place] for place in np.flatnonzero(here & ~nobody)[once]]
        row += [white] * (people - len(row))
        row += [pixels[place] for place in np.flatnonzero(here & nobody)[:clutter]]
        rows.append(np.concatenate(row + [white] * (people + clutter - len(row)), axis=1))
    return np.concatenate(rows)


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = {
        "train_identities": 8,
        "test_identities": 0,
        "distractors": 0,
        "junk": 0,
        "cameras_per_person": (5, 5),
    }
    people = sheet(World.preset("default", seed=3, **size), people=8, frames=3)
    save(people, folder / "synthetic_people.png")
    worlds = [
        sheet(World.preset(name, seed=3, **size), people=3, frames=3) for name in ("easy", "default", "hard")
    ]
    line_between = np.full((3, people.shape[1], 3), 255, np.uint8)
    save(
        np.concatenate([worlds[0], line_between, worlds[1], line_between, worlds[2]]),
        folder / "synthetic_worlds.png",
    )
    few = {"test_identities": 0, "distractors": 0, "junk": 0, "seed": 3}
    crowds = [by_camera(World.preset(name, **few), 6, 12, clutter) for name, clutter in CROWDS.items()]
    gap = np.full((len(crowds[0]), 8, 3), 255, np.uint8)
    save(np.concatenate([crowds[0], gap, crowds[1]], axis=1), folder / "synthetic_crowds.png", 256)


def save(pixels: npt.NDArray[np.uint8], path: Path, colours: int = 128) -> None:
    image = Image.fromarray(pixels)
    twice = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    twice.quantize(colours).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2", help="worlds to take the mean of")
    parser.add_argument(
        "--speed", action="store_true", help="also time the rendering, up to Market-1501's size"
    )
    parser.add_argument("--pictures", type=Path, help="also write the pictures of the documentation there")
    arguments = parser.parse_args()
    if arguments.pictures:
        pictures(arguments.pictures)
    table([int(seed) for seed in arguments.seeds.split(",")])
    if arguments.speed:
        speed()


if __name__ == "__main__":
    main()
