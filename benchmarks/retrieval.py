"""Ranking and re-ranking against the usual way of doing them, at the size of Market-1501.

    python benchmarks/retrieval.py

The usual way: a whole q x g matrix of distances; mAP and CMC each by ``numpy.argsort`` and a loop over
queries, with scikit-learn's ``average_precision_score``; for re-ranking, whole (q + g) x (q + g) matrices
and a loop over images. Both are written here for the comparison. Each side runs in its own process, on the
same made-up features, after a warm-up on a small part of them (which compiles kernels). Memory is what the
work itself adds at its peak to a process that has loaded its libraries and the features; the peak of the
whole process stands beside it. The results of both sides are compared as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

WARM_UP = 300


def make_data(n_queries, n_gallery, dimensions, seed):
    """Made-up features of 750 people under 6 cameras; a sixth of the gallery shows others."""
    rng = np.random.default_rng(seed)
    people, cameras = rng.standard_normal((1500, dimensions)), rng.standard_normal((6, dimensions))
    query_ids = rng.integers(0, 750, n_queries)
    gallery_ids = np.where(
        rng.random(n_gallery) < 1 / 6, rng.integers(750, 1500, n_gallery), rng.integers(0, 750, n_gallery)
    )
    query_cameras, gallery_cameras = rng.integers(0, 6, n_queries), rng.integers(0, 6, n_gallery)

    def features(ids, own_cameras):
        noise = rng.standard_normal((len(ids), dimensions))
        mixed = people[ids] + 0.8 * cameras[own_cameras] + 2.5 * noise
        return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)

    query, gallery = features(query_ids, query_cameras), features(gallery_ids, gallery_cameras)
    return query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras


def usual_ranking(query, gallery, *names):
    distances = 2 - 2 * query @ gallery.T
    return np.array([usual_map(distances, *names), *usual_cmc(distances, *names)])


def usual_map(distances, query_ids, gallery_ids, query_cameras, gallery_cameras):
    from sklearn.metrics import average_precision_score

    order = np.argsort(distances, axis=1)
    matches = gallery_ids[order] == query_ids[:, None]
    precisions = []
    for i in range(len(distances)):
        valid = (gallery_ids[order[i]] != query_ids[i]) | (gallery_cameras[order[i]] != query_cameras[i])
        right = matches[i, valid]
        if right.any():
            precisions.append(average_precision_score(right, -distances[i][order[i]][valid]))
    return np.mean(precisions)


def usual_cmc(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank=50):
    order = np.argsort(distances, axis=1)
    matches = gallery_ids[order] == query_ids[:, None]
    found, n_used = np.zeros(max_rank), 0
    for i in range(len(distances)):
        valid = (gallery_ids[order[i]] != query_ids[i]) | (gallery_cameras[order[i]] != query_cameras[i])
        right = np.flatnonzero(matches[i, valid])
        if len(right):
            n_used += 1
            found[right[0] :] += 1
    return found / n_used


def new_ranking(*data, device="cpu"):
    from icsr_cli.metrics import rank

    result = rank(*data, device=device)
    return np.array([result.mAP, *result.cmc])


def usual_reranking(query, gallery, *_names, k1=20, k2=6, lambda_value=0.3):
    features = np.concatenate([query, gallery])
    distances = (2 - 2 * features @ features.T) ** 2
    distances = np.ascontiguousarray((distances / distances.max(axis=0)).T)
    order = np.argsort(distances, axis=1).astype(np.int32)
    encoding = np.zeros_like(distances)
    half = round(k1 / 2)

    def reciprocal(image, k):
        forward = order[image, : k + 1]
        return forward[(order[forward, : k + 1] == image).any(axis=1)]

    for image in range(len(features)):
        core = expanded = reciprocal(image, k1)
        for candidate in core:
            candidates = reciprocal(candidate, half)
            if len(np.intersect1d(candidates, core)) > 2 / 3 * len(candidates):
                expanded = np.append(expanded, candidates)
        expanded = np.unique(expanded)
        weights = np.exp(-distances[image, expanded])
        encoding[image, expanded] = weights / weights.sum()
    original = distances[: len(query), len(query) :].copy()
    del distances
    mean = np.zeros_like(encoding)
    for image in range(len(features)):
        mean[image] = encoding[order[image, :k2]].mean(axis=0)
    encoding = mean
    del mean
    holders = [np.flatnonzero(encoding[:, column]) for column in range(len(features))]
    result = np.zeros_like(original)
    for image in range(len(query)):
        shared = np.zeros(len(features), dtype=np.float32)
        for column in np.flatnonzero(encoding[image]):
            rows = holders[column]
            shared[rows] += np.minimum(encoding[image, column], encoding[rows, column])
        jaccard = 1 - shared[len(query) :] / (2 - shared[len(query) :])
        result[image] = jaccard * (1 - lambda_value) + original[image] * lambda_value
    return result


def new_reranking(query, gallery, *_names, device="cpu"):
    from icsr_cli.metrics import rerank

    return rerank(query, gallery, device=device)


SIDES = {
    ("ranking", "usual"): usual_ranking,
    ("ranking", "icsr"): new_ranking,
    ("re-ranking", "usual"): usual_reranking,
    ("re-ranking", "icsr"): new_reranking,
}
TARGETS = {"ranking": 15, "re-ranking": 20}


def resident(field):
    """Give VmRSS (now) or VmHWM (peak) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(task, side, arguments, folder):
    """Run one side, in a process of its own; leave its figures and its result in ``folder``."""
    function = SIDES[task, side] if side == "usual" else partial(SIDES[task, side], device=arguments.device)
    data = make_data(arguments.queries, arguments.gallery, arguments.dimensions, arguments.seed)
    function(*make_data(WARM_UP, WARM_UP, arguments.dimensions, arguments.seed))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    seconds, cpu_seconds = [], []
    for _ in range(arguments.repeat):
        started, cpu_started = time.perf_counter(), time.process_time()
        result = function(*data)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    added = resident("VmHWM") - before
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.save(Path(folder, f"{task}-{side}.npy"), result)
    figures = {
        "seconds": min(seconds),
        "cpu_seconds": min(cpu_seconds),
        "added_mb": added,
        "process_mb": max(whole, before + added),
    }
    Path(folder, f"{task}-{side}.json").write_text(json.dumps(figures))


def compare(task, arguments, folder):
    """Run both sides of ``task`` one after the other."""
    figures = {"task": task}
    for side in ("usual", "icsr"):
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(task, side, arguments, folder)
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{task}, {side}: the process ended with code {process.exitcode}")
        figures[side] = json.loads(Path(folder, f"{task}-{side}.json").read_text())
    results = [np.load(Path(folder, f"{task}-{side}.npy"), mmap_mode="r") for side in ("usual", "icsr")]
    # Where two neighbours are at the same distance but for rounding, either side may take either.
    gaps = [np.mean(np.abs(one - other) > 1e-4) for one, other in zip(*results, strict=True)]
    figures["share_that_differs"] = float(np.mean(gaps))
    figures["times_as_fast"] = figures["usual"]["seconds"] / figures["icsr"]["seconds"]
    figures["times_less_cpu"] = figures["usual"]["cpu_seconds"] / figures["icsr"]["cpu_seconds"]
    figures["share_of_memory"] = figures["icsr"]["added_mb"] / figures["usual"]["added_mb"]
    return figures


def print_table(rows, arguments):
    print(
        f"{arguments.queries:,} queries, {arguments.gallery:,} gallery images, {arguments.dimensions} "
        f"dimensions; {os.cpu_count()} cores, {arguments.threads} threads, icsr on {arguments.device}; "
        f"best of {arguments.repeat}\n"
    )
    print("| task | side | seconds | CPU seconds | memory added, MB | whole process, MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        for side in ("usual", "icsr"):
            part = row[side]
            print(
                f"| {row['task']} | {side} | {part['seconds']:.2f} | {part['cpu_seconds']:.2f} "
                f"| {part['added_mb']:,.0f} | {part['process_mb']:,.0f} |"
            )
    print()
    for row in rows:
        print(
            f"{row['task']}: {row['times_as_fast']:.1f} times as fast (aim: {TARGETS[row['task']]}; "
            f"in CPU seconds {row['times_less_cpu']:.1f}), {row['share_of_memory']:.1%} of the memory "
            "(aim: below 25%), "
            f"{row['share_that_differs']:.4%} of the results differ by more than 0.0001"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for both sides")
    parser.add_argument("--device", default="cpu", help="where icsr multiplies features: cuda")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each side; the fastest counts")
    parser.add_argument("--task", choices=sorted(TARGETS), help="one of the two alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        parser.error("peak memory is read from /proc: run this on Linux")
    # Before the sides' processes load their libraries, which read it once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    tasks = [arguments.task] if arguments.task else ["ranking", "re-ranking"]
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(task, arguments, folder) for task in tasks]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print_table(rows, arguments)


if __name__ == "__main__":
    main()
