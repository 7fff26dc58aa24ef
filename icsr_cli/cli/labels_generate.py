"""``icsr labels generate``: the label engine alone, on features from anywhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import make_progress, print_beside, print_facts, print_json, say
from icsr_cli.errors import UsageError

if TYPE_CHECKING:
    from icsr_cli.config.schema import GlobalSettings
    from icsr_cli.labelling import KnownEvidence
    from icsr_cli.recipes.feature_files import Given
    from icsr_cli.types import IntArray, Labels, Pairs


def generate(
    features: Annotated[
        Path,
        typer.Argument(
            help="An .npz with features (n, d); perhaps cameras, local_labels, ids, tracks, frames, paths. "
            "Or an .npy of features alone, which stays on disk."
        ),
    ],
    method: Annotated[str, options.a_method(help="Whose settings to begin from: `icsr methods`.")] = "icsr",
    clusterer: options.Clusterer = None,
    refine: options.Refine = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the chain: eps=0.5 (of the clusterer), distance.k1=20, normalise=full.",
        ),
    ] = None,
    k1: Annotated[int | None, typer.Option("--k1", help="Neighbours in the reciprocal sets.")] = None,
    k2: Annotated[int | None, typer.Option("--k2", help="Neighbours that are averaged.")] = None,
    local: Annotated[
        Literal["file", "cluster", "none"],
        typer.Option("--local", help="Local labels: of the file; each camera clustered here; none."),
    ] = "file",
    images_per_cluster: Annotated[
        int | None,
        typer.Option(
            "--images-per-cluster",
            min=1,
            help="With --local cluster: n / this many clusters; 5 if left out.",
            show_default=False,
        ),
    ] = None,
    approximate: Annotated[
        Literal["hnsw", "int8", "ivf"] | None,
        typer.Option(
            "--approximate", help="Search neighbours by codes of 8 bits (int8), or an index of faiss."
        ),
    ] = None,
    lean: Annotated[
        bool,
        typer.Option(
            "--lean",
            help="Store only pairs that the clusterer can use: the same labels in less memory, without "
            "silhouette and cohesion.",
        ),
    ] = False,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="NAME=KEY",
            help="The file's own name, e.g. --key ids=pid; or an .npy of its own.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the labels: a .npz or .csv file.")
    ] = None,
    pairs: options.PairsFile = None,
    pairs_labels: options.PairsLabels = None,
    plugin: options.Plugin = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Turn features into labels, and say what they look like.

    Labels are 0..m-1; -1 is noise, or thrown out by a refiner. What --out writes, icsr labels inspect shows.

    Example: icsr labels generate features.npz --clusterer dbscan --set eps=0.5 --out labels.csv
    """
    from icsr_cli import config
    from icsr_cli.labelling import evidence_of, label, label_cameras
    from icsr_cli.recipes.feature_files import read_features, renamed
    from icsr_cli.runs import table_of, write_labels
    from icsr_cli.runs.pairs import read_pairs

    if out is not None:
        options.check_out(out, "--out", ".npz", ".csv", reads=[features])
    if images_per_cluster is not None and local != "cluster":
        raise UsageError("--images-per-cluster is for the clusters of each camera: add --local cluster.")
    options.load_plugins(plugin)
    given = read_features(features, renamed(keys or ()))
    known = read_pairs(pairs, given.paths.tolist(), pairs_labels)
    if local == "cluster" and given.cameras is None:
        raise UsageError(f"--local cluster needs the camera of each image, and {features} has no `cameras`.")
    asked = {
        "cam.clusterer": {"method": "average-linkage", "images_per_cluster": images_per_cluster or 5},
        **options.label_methods(clusterer, refine),
        **{
            f"{stage}.distance.{key}": k for stage in ("cam", "global") for key, k in (("k1", k1), ("k2", k2))
        },
    }
    settings = config.load(
        "",
        method=method,
        options=asked,
        assignments=[_of_chain(assignment) for assignment in assignments or ()],
        images={"global": len(given.features)},
    )
    least = _least(settings.global_, known) if lean else 0.0
    if device is not None:
        from icsr_cli.recipes.steps import choose_engine

        device = str(choose_engine(device, "fp32").device)
    progress = make_progress(quiet, as_json)
    started = time.perf_counter()
    with progress.task("Labels", 2, "steps") as task:
        locals_ = None if local == "none" else given.local_labels
        if local == "cluster" and given.cameras is not None:
            cam = settings.cam
            locals_ = label_cameras(
                given.features, cam, cam.clusterer, given.cameras, pairs=known, device=device
            )
        task.advance()
        evidence = evidence_of(
            given.features,
            settings.global_,
            cameras=given.cameras,
            local=locals_,
            tracks=given.tracks,
            frames=given.frames,
            pairs=known,
            device=device,
            approximate=approximate,
            least=least,
        )
        labels = label(evidence, settings.global_)
        for note in labels.notes:
            progress.warn(note)
        task.advance()
    _show(given, settings.global_, evidence, labels, time.perf_counter() - started, as_json)
    if out is not None:
        write_labels(out, table_of(labels, given.paths.tolist(), given.cameras, given.ids, locals_))
        if not as_json:
            say(f"Written to {out}", whole=True)


def _least(own: GlobalSettings, known: Pairs | None) -> float:
    """Give the smallest similarity that the chain reads; refuse where it reads all."""
    from icsr_cli.labelling import least_similarity

    if known is not None:
        raise UsageError(
            "--lean does not go with --pairs: what was said of pairs is mended by all similarities."
        )
    least = least_similarity(own)
    if least == 0:
        raise UsageError(
            f"--lean saves nothing here: {own.clusterer.method} or a refiner uses every pair. "
            "It goes with dbscan at a fixed radius (--clusterer dbscan --set eps=0.5)."
        )
    return least


def _of_chain(assignment: str) -> str:
    """Give the full key of a setting; one that is no section's is the clusterer's.

    Raises:
        UsageError: it is one of training alone, or says no value.
    """
    from icsr_cli.config.schema import GlobalSettings

    own = assignment.removeprefix("global.")
    key, says, _ = own.partition("=")
    first, below, _ = key.strip().partition(".")
    if not says or not first:
        raise UsageError(f"--set takes key=value, for instance --set eps=0.5; got {assignment!r}.")
    if first in ("clusterer", "distance", "normalise", "refiners"):
        return f"global.{own}"
    if below or first in GlobalSettings.model_fields:  # a clusterer's keys hold no others
        raise UsageError(
            f"--set {assignment} changes nothing here; clusterer, distance, normalise and refiners do."
        )
    return f"global.clusterer.{own}"


def _show(
    given: Given, own: GlobalSettings, evidence: KnownEvidence, labels: Labels, seconds: float, as_json: bool
) -> None:
    """Print two tables on standard output, or one JSON document."""
    import numpy as np

    stages = {"clustering": labels.clusters}
    if not np.array_equal(labels.clusters, labels.labels):
        stages["refined"] = labels.labels
    summaries = {name: _sizes(found) | _quality(found, given.ids) for name, found in stages.items()}
    states, counts = np.unique(labels.states, return_counts=True)
    facts: dict[str, Any] = {
        "images": len(labels.labels),
        "cameras": None if given.cameras is None else len(np.unique(given.cameras)),
        "clusterer": own.clusterer.dump(),
        "refiners": [refiner.method for refiner in own.refiners],
        "states": dict(zip(states.tolist(), counts.tolist(), strict=True)),
        "stored_pairs": evidence.similarity.nnz,
        "recall_of_the_index": getattr(evidence.nearest, "recall", None),
        **labels.figures,
        "seconds": seconds,
    }
    if as_json:
        print_json({**facts, "clusterings": [{"labels": name, **one} for name, one in summaries.items()]})
        return
    facts |= {
        "clusterer": " ".join(
            f"{key}={value}" for key, value in facts["clusterer"].items() if value is not None
        ),
        "refiners": ", ".join(facts["refiners"]) or "none",
        "states": ", ".join(f"{count:,} {state}" for state, count in facts["states"].items()),
    }
    print_facts("Labels", facts)
    print_beside("Clusters", "", summaries)


def _sizes(labels: IntArray) -> dict[str, Any]:
    import numpy as np

    sizes = np.bincount(labels[labels >= 0])
    return {
        "clusters": len(sizes),
        "in_none": int((labels < 0).sum()),
        "median_size": float(np.median(sizes)) if len(sizes) else None,
        "largest": int(sizes.max()) if len(sizes) else None,
    }


#: The measures that are shown, by their fields.
_MEASURES = (
    "pairwise_precision",
    "pairwise_recall",
    "pairwise_f",
    "bcubed_f",
    "expansion",
    "nmi",
    "coverage",
)


def _quality(labels: IntArray, ids: IntArray | None) -> dict[str, float]:
    """Give the quality where there is a truth, and something to compare with it."""
    from icsr_cli.metrics import judge

    judged = None if ids is None else judge(labels, ids)
    return {} if judged is None else {name: getattr(judged, name) for name in _MEASURES}
