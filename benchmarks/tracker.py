"""Load an ONNX file of ours as the ReID model of BoxMOT, a tracker package, and compare the features.

    pip install boxmot
    icsr demo -m camera-aware
    python benchmarks/tracker.py runs/demo/global/RUN/last.safetensors

Crops that have the network's size must give our own features to 1e-4; larger crops are resized by the tracker
its own way, and the cosine to our features is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="of a trained network: random ones tell nothing apart")
    options = parser.parse_args()
    from boxmot.reid.backends.onnx_backend import ONNXBackend

    from icsr_cli.features import extract
    from icsr_cli.models import open_model
    from icsr_cli.models.weights import read_metadata
    from icsr_cli.recipes.export import export_onnx
    from icsr_cli.synthesis import World, draw

    network = open_model(options.weights).eval()
    said = read_metadata(options.weights)
    size = int(said["height"]), int(said["width"])
    large = 2 * size[0], 2 * size[1]
    world = World.preset("default", train_identities=4, test_identities=2, height=large[0], width=large[1])
    people = draw(world)[1][:6]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "person.onnx"
        export_onnx(network, size, path)
        backend = ONNXBackend(path, torch.device("cpu"), half=False)
        print(f"{network.arch}, {len(people)} crops; BoxMOT takes {backend.input_shape} images")
        print("| crops | least cosine | largest difference |\n| --- | ---: | ---: |")
        for title, crop in (("of the network's size", size), ("twice as large", large)):
            crops = np.stack([np.asarray(Image.fromarray(one).resize(crop[::-1])) for one in people])
            frame = np.concatenate(list(crops), axis=1)[
                :, :, ::-1
            ].copy()  # one frame, BGR, people side by side
            boxes = np.array([[i * crop[1], 0, (i + 1) * crop[1], crop[0]] for i in range(len(crops))], float)
            theirs = backend.get_features(boxes, frame)
            own = np.stack(
                [
                    np.asarray(Image.fromarray(one).resize(size[::-1], Image.Resampling.BICUBIC))
                    for one in crops
                ]
            )
            ours = extract(network, own).numpy()
            cosine = (theirs * ours).sum(axis=1)
            print(f"| {title} | {cosine.min():.5f} | {np.abs(theirs - ours).max():.1e} |")
            if crop == size:
                np.testing.assert_allclose(theirs, ours, atol=1e-4)


if __name__ == "__main__":
    main()
