"""The label part of an epoch, alone and shared by the ranks of one machine: seconds, and equal labels.

Each number of ranks is started as torchrun does, over gloo, one thread each, and makes the labels of the same
features: neighbours, similarities, clusters, by the settings of a method. The clock starts once all have
joined. Ranks beyond the processors only take turns.

    python benchmarks/ranks.py --images 12936 --features 2048 --ranks 1,2,4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def label_together(n: int, d: int, method: str, out: Path) -> None:
    """Be one rank: label made-up features together with the others; the first writes what was found."""
    import torch

    from icsr_cli import config
    from icsr_cli.labelling import evidence_of, label
    from icsr_cli.recipes.distributed import join, leave

    torch.set_num_threads(1)
    ranks, _ = join(["cpu"])
    drawn = np.random.default_rng(0)
    people, cameras = drawn.integers(0, max(2, n // 17), n), drawn.integers(0, 6, n)
    x = drawn.standard_normal((people.max() + 1, d), np.float32)[people]
    x += 0.8 * drawn.standard_normal((n, d), np.float32)
    features = torch.nn.functional.normalize(torch.from_numpy(x))
    own = config.load("benchmark", method=method, images={"global": n}).global_
    seconds = []
    for _ in range(2):  # the first compiles, or reads what was compiled
        ranks.together(lambda: None)
        started = time.perf_counter()
        evidence = evidence_of(features, own, cameras=cameras, team=ranks)
        ranks.together(evidence.compute_together)
        labels = ranks.from_leader(lambda evidence=evidence: label(evidence, own))
        seconds.append(time.perf_counter() - started)
    if ranks.rank == 0:
        np.savez(out, labels=labels.labels, seconds=seconds[-1])
    leave()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12_936, help="images")
    parser.add_argument("--features", type=int, default=2_048, help="features of each")
    parser.add_argument("--ranks", default="1,2,4", help="numbers of ranks")
    parser.add_argument("--method", default="camera-aware", help="whose labels")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        label_together(options.images, options.features, options.method, options.worker)
        return
    print("| ranks | seconds | times as fast as one | clusters |\n| ---: | ---: | ---: | ---: |", flush=True)
    found = []
    for ranks in map(int, options.ranks.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.npz"
            launch = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc-per-node={ranks}",
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
            subprocess.run(
                [*launch, __file__, *sys.argv[1:], "--worker", str(out)], check=True, env=environment
            )
            with np.load(out) as file:
                found.append((file["labels"], float(file["seconds"])))
        labels, seconds = found[-1]
        np.testing.assert_array_equal(labels, found[0][0])
        print(f"| {ranks} | {seconds:.1f} | {found[0][1] / seconds:.2f} | {labels.max() + 1} |", flush=True)
    print(
        json.dumps(
            {
                "images": options.images,
                "features": options.features,
                "processors": len(os.sched_getaffinity(0)),
            }
        )
    )


if __name__ == "__main__":
    main()
