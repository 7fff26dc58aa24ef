"""The label engine beside a plain dense implementation: time, ratio and peak memory, in one run.

    python benchmarks/labels.py                                  # 12,936 x 2,048, 6 cameras, both sides
    python benchmarks/labels.py --sizes 4000 8000 16000 --d 512  # the engine alone, at several sizes
    python benchmarks/labels.py --lean --sizes 4000 8000 --d 512  # dbscan, with all pairs and without
    python benchmarks/labels.py --lean --sides lean --approximate int8 --sizes 1000000 --d 512
    python benchmarks/labels.py --camera-aware --sizes 4000 8000 --d 512  # two distances, side by side

Made-up features: people as points of a space of 64 dimensions, shifted by the camera, spread by pose,
mixed into d dimensions with some noise; with --slow-spectrum, as points of d dimensions, of which the i-th
has the variance 1 / i. Each side runs in a process of its own, after a warm-up on a small input (compiled
code is loaded then). Memory added is what the work takes at its peak beyond the libraries and the features;
with --lean, which maps them from the disk, the features included. The dense side is numpy and scikit-learn,
with loops over images as in the description of the method.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

STAGES = ("kNN", "Jaccard", "average linkage", "silhouette", "each camera", "nodes, refinement")


def make_features(n, d, cameras, images_per_identity, seed):
    """Give unit float32 (n, d), and the identity and camera of each row."""
    rng = np.random.default_rng(seed)
    people = max(2, n // images_per_identity)
    ids, cams = rng.integers(0, people, n), rng.integers(0, cameras, n)
    latent = rng.standard_normal((people, 64))[ids] + 0.5 * rng.standard_normal((cameras, 64))[cams]
    latent += 0.5 * rng.standard_normal((n, 64))
    mixing = rng.standard_normal((64, d)).astype(np.float32) / 8
    features = latent.astype(np.float32) @ mixing
    for low in range(0, n, 4096):
        features[low : low + 4096] += 0.2 * rng.standard_normal(features[low : low + 4096].shape, np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, ids, cams


def make_slow_features(n, d, cameras, images_per_identity, seed):
    """Give the same, of people whose i-th number has the variance 1 / i: few directions do not hold them."""
    rng = np.random.default_rng(seed)
    people = max(2, n // images_per_identity)
    ids, cams = rng.integers(0, people, n), rng.integers(0, cameras, n)
    points, shifts = (
        rng.standard_normal((people, d), np.float32),
        rng.standard_normal((cameras, d), np.float32),
    )
    features = np.empty((n, d), dtype=np.float32)
    for low in range(0, n, 4096):
        own = slice(low, low + 4096)
        features[own] = points[ids[own]] + 0.5 * shifts[cams[own]]
        features[own] += 0.5 * rng.standard_normal(features[own].shape, np.float32)
        features[own] *= np.arange(1, d + 1, dtype=np.float32) ** -0.5
        features[own] /= np.linalg.norm(features[own], axis=1, keepdims=True)
    return features, ids, cams


class Clock:
    """Seconds per stage."""

    def __init__(self):
        self.seconds = dict.fromkeys((*STAGES, "dbscan"), 0.0)

    @contextmanager
    def __call__(self, stage):
        """Add the time of a block to ``stage``."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds[stage] += seconds
        if seconds > 60:
            so_far = f"so far {time.process_time():.0f} s of processors, peak {peak_memory() / 1e9:.2f} GB"
            print(f"{stage}: {seconds:.0f} s; {so_far}", file=sys.stderr, flush=True)


# The engine -----------------------------------------------------------------------------------------


def engine_chain(features, cams, clusters, k1, k2, clock, approximate=None, device=None):
    """Label each camera alone, then all images, and refine; give labels, refined labels and facts."""
    from icsr_cli.clustering import average_linkage, silhouette
    from icsr_cli.distances import jaccard_similarity, knn
    from icsr_cli.refinement import information_nodes, node_scores, refine
    from icsr_cli.threads import at_once

    local = np.empty(len(features), dtype=np.int64)

    def label_camera(camera):
        rows = np.flatnonzero(cams == camera)
        count = min(len(rows), max(2, len(rows) // 5))
        similarity = jaccard_similarity(features[rows], k1, k2, device=device)
        local[rows] = average_linkage(similarity, n_clusters=count)

    with clock("each camera"):
        at_once(label_camera, np.unique(cams))
    with clock("kNN"):
        found = knn(features, k1, metric="cosine", device=device, approximate=approximate)
    with clock("Jaccard"):
        similarity = jaccard_similarity(features, k1, k2, device=device, neighbours=found)
    with clock("average linkage"):
        labels = average_linkage(similarity, n_clusters=clusters)
    with clock("silhouette"):
        score = silhouette(similarity, labels)
    with clock("nodes, refinement"):
        nearest = found.first(15)
        refined, discarded = refine(labels, local, cams, information_nodes(node_scores(nearest), labels))
    facts = {
        "silhouette": score,
        "thrown out": int(discarded.sum()),
        "pairs per image": similarity.nnz / len(features),
    }
    if approximate:
        facts["recall"] = found.recall
    return labels, refined, facts


# One distance, with its search of neighbours --------------------------------------------------------


def jaccard_alone(features, cams, clusters, k1, k2, clock, approximate=None, device=None):
    """Take k-reciprocal Jaccard similarities, and stop there."""
    from icsr_cli.distances import jaccard_similarity

    with clock("Jaccard"):
        similarity = jaccard_similarity(features, k1, k2)
    return [], [], {"pairs per image": similarity.nnz / len(features)}


def dbscan_chain(
    features, cams, clusters, k1, k2, clock, approximate=None, device=None, *, lean, tracks=None
):
    """Label all images, and each camera's alone where there are no tracks, by dbscan (eps 0.5), and refine.

    ``lean``: pairs beyond the radius are not stored, as by ``icsr labels generate --lean``.
    """
    from icsr_cli.clusterers import dbscan
    from icsr_cli.distances import jaccard_similarity, knn
    from icsr_cli.refinement import information_nodes, node_scores, refine
    from icsr_cli.threads import at_once

    options = dbscan.Options(eps=0.5)
    how = {"device": device, "least": options.least_similarity if lean else 0.0}
    with clock("kNN"):
        found = knn(features, k1, metric="cosine", device=device, approximate=approximate)
    with clock("Jaccard"):
        similarity = jaccard_similarity(features, k1, k2, neighbours=found, **how)
    with clock("dbscan"):
        labels = dbscan.dbscan(similarity, options.eps, options.min_samples)
    pairs = similarity.nnz
    del similarity
    local = np.empty(len(features), dtype=np.int64) if tracks is None else tracks

    def label_camera(camera):
        rows = np.flatnonzero(cams == camera)
        own = jaccard_similarity(features[rows], k1, k2, approximate=approximate, **how)
        local[rows] = dbscan.dbscan(own, options.eps, options.min_samples)

    with clock("each camera"):
        at_once(label_camera, np.unique(cams) if tracks is None else ())
    with clock("nodes, refinement"):
        nearest = found.first(15)
        refined, _ = refine(labels, local, cams, information_nodes(node_scores(nearest), labels))
    facts = {"pairs per image": pairs / len(features), "recall": getattr(found, "recall", 1.0)}
    return labels, refined, facts


def camera_aware_alone(features, cams, clusters, k1, k2, clock, approximate=None, device=None):
    """Take camera-aware Jaccard similarities, and stop there."""
    from icsr_cli.distances import camera_jaccard_similarity

    with clock("Jaccard"):
        similarity = camera_jaccard_similarity(features, cams)
    return [], [], {"pairs per image": similarity.nnz / len(features)}


# The dense side -------------------------------------------------------------------------------------


def dense_knn(features, k):
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="sqeuclidean").fit(features)
    return model.kneighbors(features)[::-1]


def reciprocal(ranks, i, k):
    forward = ranks[i, :k]
    return forward[(ranks[forward, :k] == i).any(axis=1)]


def dense_jaccard(features, ranks, k1, k2):
    """Float32 (n, n) distances, by an (n, n) matrix of weights and two loops over the images."""
    n, half = len(features), round(k1 / 2) + 1
    full_sets = [reciprocal(ranks, i, k1) for i in range(n)]
    half_sets = [reciprocal(ranks, i, half) for i in range(n)]
    weights = np.zeros((n, n), dtype=np.float32)
    for i in range(n):
        members = full_sets[i]
        for candidate in full_sets[i]:
            other = half_sets[candidate]
            if len(np.intersect1d(other, full_sets[i])) * 3 > len(other) * 2:
                members = np.append(members, other)
        members = np.unique(members)
        scores = np.exp(-(2 - 2 * features[members] @ features[i]))
        weights[i, members] = scores / scores.sum()
    if k2 > 1:
        averaged = np.empty_like(weights)
        for i in range(n):
            averaged[i] = weights[ranks[i, :k2]].mean(axis=0)
        weights = averaged
    columns = [np.flatnonzero(weights[:, j]) for j in range(n)]
    distances = np.empty((n, n), dtype=np.float32)
    for i in range(n):
        shared = np.zeros(n, dtype=np.float32)
        for j in np.flatnonzero(weights[i]):
            shared[columns[j]] += np.minimum(weights[i, j], weights[columns[j], j])
        distances[i] = 1 - shared / (2 - shared)
    return distances.clip(0, out=distances)


def dense_linkage(distances, clusters):
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(n_clusters=clusters, metric="precomputed", linkage="average")
    return model.fit_predict(distances)


def dense_scores(ranks, distances):
    mean = distances.mean()
    scores = np.zeros(len(ranks))
    for i in range(len(ranks)):
        for j, distance in zip(ranks[i], distances[i], strict=True):
            if j != i and 1 - distance >= 0.5:
                scores[i] += 1 / (distance + mean)
    return scores


def dense_refine(labels, local, cams, scores):
    refined = labels.copy()
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        node = members[np.argmax(scores[members])]
        for image in members:
            if cams[image] == cams[node] and local[image] != local[node]:
                refined[image] = -1
    return refined


def dense_chain(features, cams, clusters, k1, k2, clock, approximate=None, device=None):
    from sklearn.metrics import silhouette_score

    local = np.empty(len(features), dtype=np.int64)
    with clock("each camera"):
        for camera in np.unique(cams):
            rows = np.flatnonzero(cams == camera)
            ranks, _ = dense_knn(features[rows], k1)
            count = min(len(rows), max(2, len(rows) // 5))
            local[rows] = dense_linkage(dense_jaccard(features[rows], ranks, k1, k2), count)
    with clock("kNN"):
        ranks, squared = dense_knn(features, k1)
    with clock("Jaccard"):
        distances = dense_jaccard(features, ranks, k1, k2)
    with clock("average linkage"):
        labels = dense_linkage(distances, clusters)
    with clock("silhouette"):
        np.fill_diagonal(distances, 0)
        score = silhouette_score(distances, labels, metric="precomputed")
    with clock("nodes, refinement"):
        scores = dense_scores(ranks[:, :15], squared[:, :15] / 2)
        refined = dense_refine(labels, local, cams, scores)
    return labels, refined, {"silhouette": float(score), "thrown out": int((refined < 0).sum())}


# Measuring ------------------------------------------------------------------------------------------

SIDES = {
    "engine": engine_chain,
    "dense": dense_chain,
    "jaccard": jaccard_alone,
    "camera-aware": camera_aware_alone,
    "whole": partial(dbscan_chain, lean=False),
    "lean": partial(dbscan_chain, lean=True),
}


def peak_memory():
    """Give the most bytes this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_side(arguments):
    """In a process of its own: print what it took as JSON, leave the labels beside the features."""
    from icsr_cli import exact_search
    from icsr_cli.distances.codes import are_fast, encode  # with torch, which training has loaded too
    from icsr_cli.distances.rough import search_roughly
    from icsr_cli.distances.sketch import sketches
    from icsr_cli.types import ALONE

    folder = Path(arguments.folder)
    mapped = "r" if arguments.side in ("whole", "lean") else None
    features, cams = np.load(folder / "features.npy", mmap_mode=mapped), np.load(folder / "cams.npy")
    chain = SIDES[arguments.side]
    small, _, small_cams = make_features(300, 16, 3, 10, 0)
    how = {"approximate": arguments.approximate, "device": arguments.device}
    chain(small, small_cams, 40, min(arguments.k1, 50), arguments.k2, Clock(), **how)
    wide = make_features(300, 256, 3, 10, 0)[0]  # what these are too few for
    for choices in sketches(wide), [encode(*wide.shape, wide.__getitem__)] if are_fast() else []:
        search_roughly(wide, choices, [exact_search.Among(4)], np.zeros(300, dtype=np.int64), ALONE)
    loaded = peak_memory()
    clock, busy = Clock(), time.process_time()
    if arguments.tracks:
        how["tracks"] = np.load(folder / "ids.npy")
    labels, refined, facts = chain(
        features, cams, arguments.clusters, arguments.k1, arguments.k2, clock, **how
    )
    facts["processor"] = time.process_time() - busy
    peak = peak_memory()
    np.savez(folder / f"{arguments.side}.npz", labels=labels, refined=refined)
    json.dump({"seconds": clock.seconds, "peak": peak, "added": peak - loaded, **facts}, sys.stdout)


def measure(side, folder, clusters):
    """Run a side in a process of its own, with the options of this one."""
    own = ["--side", side, "--folder", str(folder), "--clusters", str(clusters)]
    command = [sys.executable, __file__, *sys.argv[1:], *own]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{side} side ended with code {result.returncode}.")
    return json.loads(result.stdout)


def agreement(folder):
    from sklearn.metrics import adjusted_rand_score

    engine, dense = np.load(folder / "engine.npz"), np.load(folder / "dense.npz")
    return {key: float(adjusted_rand_score(engine[key], dense[key])) for key in ("labels", "refined")}


def compare(arguments, n, sides):
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        results = compare_in(Path(name), arguments, n, sides)
        if "dense" in sides:
            results["agreement"] = agreement(Path(name))
    return results


def compare_in(folder, arguments, n, sides):
    """Run the sides on the same features, which lie in the folder, as do the labels afterwards."""
    make = make_slow_features if arguments.slow_spectrum else make_features
    features, ids, cams = make(
        n, arguments.d, arguments.cameras, arguments.images_per_identity, arguments.seed
    )
    np.save(folder / "ids.npy", ids)
    np.save(folder / "features.npy", features)
    np.save(folder / "cams.npy", cams)
    del features
    clusters = arguments.clusters or max(2, n // 11)
    return {side: measure(side, folder, clusters) for side in sides}


def show_comparison(arguments, n, results):
    engine, dense = results["engine"], results["dense"]
    print(f"{n:,} x {arguments.d:,}, {arguments.cameras} cameras, k1 = {arguments.k1}, k2 = {arguments.k2}")
    print(f"{engine['pairs per image']:.0f} stored pairs per image\n")
    print("| stage | dense, s | engine, s | ratio |\n| --- | ---: | ---: | ---: |")
    rows = [(stage, dense["seconds"][stage], engine["seconds"][stage]) for stage in STAGES]
    rows.append(("all", sum(dense["seconds"].values()), sum(engine["seconds"].values())))
    for stage, slow, fast in rows:
        print(f"| {stage} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |")
    for name, key in (("memory added, GB", "added"), ("peak of the process, GB", "peak")):
        slow, fast = dense[key] / 1e9, engine[key] / 1e9
        ratio = f"{slow / fast:.1f}" if fast else "-"  # a small work may add nothing to the warm-up's peak
        print(f"| {name} | {slow:.2f} | {fast:.2f} | {ratio} |")
    print(
        f"\nsilhouette {dense['silhouette']:.6f} and {engine['silhouette']:.6f}; thrown out "
        f"{dense['thrown out']} and {engine['thrown out']}; adjusted Rand index of the two clusterings "
        f"{results['agreement']['labels']:.4f}, refined {results['agreement']['refined']:.4f}"
    )


def show_sizes(arguments, sizes):
    print(f"d = {arguments.d:,}, {arguments.cameras} cameras, k1 = {arguments.k1}, k2 = {arguments.k2}\n")
    print("| images | " + ", s | ".join(STAGES) + ", s | pairs per image | memory added, GB |")
    print("| ---: " * (len(STAGES) + 3) + "|", flush=True)
    for n in sizes:
        engine = compare(arguments, n, ["engine"])["engine"]
        times = " | ".join(f"{engine['seconds'][stage]:.2f}" for stage in STAGES)
        recall = f" (recall {engine['recall']:.3f})" if "recall" in engine else ""
        print(
            f"| {n:,}{recall} | {times} | {engine['pairs per image']:.0f} | {engine['added'] / 1e9:.2f} |",
            flush=True,
        )


def show_distances(arguments, sizes):
    print(f"d = {arguments.d:,}, {arguments.cameras} cameras, k1 = {arguments.k1}, k2 = {arguments.k2}\n")
    print("| images | distance | kNN and Jaccard, s | pairs per image | memory added, GB |")
    print("| ---: | --- | ---: | ---: | ---: |", flush=True)
    for n in sizes:
        for side, found in compare(arguments, n, ["jaccard", "camera-aware"]).items():
            print(
                f"| {n:,} | {side} | {found['seconds']['Jaccard']:.2f} | {found['pairs per image']:.0f} "
                f"| {found['added'] / 1e9:.2f} |",
                flush=True,
            )


def show_lean(arguments, sizes):
    from icsr_cli.metrics import label_quality

    stages = ("kNN", "Jaccard", "dbscan", "each camera", "nodes, refinement")
    print(f"d = {arguments.d:,}, k1 = {arguments.k1}, k2 = {arguments.k2}, dbscan, eps = 0.5\n")
    print(
        f"| images | pairs | {', s | '.join(stages)}, s | all, s | of the processors, s | recall "
        "| pairs per image | memory added, GB | peak, GB | BCubed F |"
    )
    print("| ---: | --- " + "| ---: " * (len(stages) + 7) + "|", flush=True)
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
            results = compare_in(Path(name), arguments, n, arguments.sides)
            labels = [np.load(Path(name) / f"{side}.npz")["refined"] for side in results]
            ids = np.load(Path(name) / "ids.npy")
        if not np.array_equal(labels[0], labels[-1]):
            sys.exit(f"{n:,} images: the two give different labels")
        quality = label_quality(labels[0], ids).bcubed_f
        for side, found in results.items():
            times = [found["seconds"][stage] for stage in stages]
            cells = [f"{seconds:.2f}" for seconds in (*times, sum(times), found["processor"])]
            cells += [f"{found['recall']:.4f}", f"{found['pairs per image']:.0f}"]
            cells += [f"{found[size] / 1e9:.2f}" for size in ("added", "peak")]
            print(f"| {n:,} | {side} | {' | '.join(cells)} | {quality:.4f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=12_936, help="images")
    parser.add_argument("--sizes", type=int, nargs="+", help="several n, the engine alone")
    parser.add_argument("--d", type=int, default=2048, help="numbers per feature")
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--k1", type=int, default=30)
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--clusters", type=int, help="clusters of the average linkage; default n / 11")
    parser.add_argument("--images-per-identity", type=int, default=17)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine-only", action="store_true", help="leave the dense side out")
    parser.add_argument(
        "--camera-aware", action="store_true", help="the camera-aware distance beside the usual one, alone"
    )
    parser.add_argument(
        "--lean", action="store_true", help="dbscan with every pair stored, and with those it can use"
    )
    parser.add_argument(
        "--sides", choices=("whole", "lean"), nargs="+", default=["whole", "lean"], help="with --lean: which"
    )
    parser.add_argument(
        "--tracks", action="store_true", help="with --lean: local labels are true, no camera is clustered"
    )
    parser.add_argument("--slow-spectrum", action="store_true", help="features of many directions")
    parser.add_argument("--scratch", help="where the features lie; default: the folder for temporary files")
    parser.add_argument(
        "--approximate", choices=("hnsw", "int8", "ivf"), help="the engine's neighbours by an index"
    )
    parser.add_argument("--device", help="where the engine searches: cuda; default: the CPU")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tracks and not arguments.lean:
        parser.error("--tracks goes with --lean.")
    if arguments.side:
        run_side(arguments)
    elif arguments.camera_aware:
        if arguments.approximate or arguments.device or arguments.lean:
            parser.error("--camera-aware goes with none of --approximate, --device, --lean.")
        show_distances(arguments, arguments.sizes or [arguments.n])
    elif arguments.lean:
        show_lean(arguments, arguments.sizes or [arguments.n])
    elif arguments.sizes or arguments.engine_only:
        show_sizes(arguments, arguments.sizes or [arguments.n])
    else:
        show_comparison(arguments, arguments.n, compare(arguments, arguments.n, ["engine", "dense"]))


if __name__ == "__main__":
    main()
