"""The global stage: all cameras together.

Each epoch: features, labels by the chain of methods that the settings name, training on them (with the
published methods: arXiv 2304.12634, section 2.2).
"""

import json
from typing import Any

import numpy as np

from icsr_cli.choices import Options, chosen
from icsr_cli.config.schema import GlobalSettings
from icsr_cli.errors import TrainingError
from icsr_cli.labelling import evidence_of, label, label_cameras, overlapping_tracks, tell_apart
from icsr_cli.models import Network
from icsr_cli.recipes.steps import Part, build_memory, draw_batches, seed_of
from icsr_cli.recipes.trainer import Stage, Trainer
from icsr_cli.runs import read_labels, tabulate, write_labels
from icsr_cli.runs.quality import quality
from icsr_cli.types import Epoch, Evidence, IntArray, Labels

STAGE = 2


def train_global_stage(stage: Stage) -> Network:
    """Train on all cameras and give the network of the last epoch.

    Writes ``last.safetensors``, ``best.safetensors``, ``labels/epoch_*.csv`` and ``metrics.jsonl``. A run
    that was interrupted goes on after its last finished epoch and ends as if it had not been.

    Raises:
        TrainingError: where every image is noise, or a loss is not finite.
        RunError: where the network of finished training, or part of a checkpoint, is gone.
        Interrupted: on SIGINT or SIGTERM; every finished epoch is saved.
    """
    own, run = stage.settings.global_, stage.run
    state = run.load_state("global", "best", *Trainer.STATE)
    trainer = Trainer(stage, own, seed_of(stage.settings.seed, STAGE), state)
    first, best = (1, -np.inf) if state is None else (state["epoch"] + 1, state["best"])
    if stage.settings.select == "test-map":
        stage.progress.warn(
            "The test set chooses the epoch of best.safetensors (select: test-map): figures of it on that "
            "set are too good. Measure last.safetensors."
        )
    if stage.ranks.leads:
        run.go_on(first - 1, (state or {}).get("figures"))
    previous = None if first == 1 else read_labels(run.label_file(first - 1)).labels
    if first > own.epochs:
        run.check_network("global", "last", "best")
        stage.progress.note("Every epoch is finished already: nothing is left to train.")
    if len(np.unique(stage.split.cameras)) == 1:
        stage.progress.warn(_of_one_camera(own))
    with stage.progress.task("Global stage", own.epochs + 1 - first, "epochs") as whole:
        for epoch in range(first, own.epochs + 1):
            figures, previous = _epoch(stage, trainer, epoch, previous)
            whole.advance()
            if not stage.ranks.leads:
                continue
            value = _selection(stage, trainer.network, figures, epoch)
            line = {"epoch": epoch, **figures}
            run.record(line)
            if value > best:
                best = value
                trainer.save("best")
                run.update_info(best_epoch=epoch)
            trainer.save("last")
            done = {"epoch": epoch, "best": best, "figures": json.dumps(line)}
            run.save_state("global", {**done, **trainer.state()})
            stage.progress.report(f"Epoch {epoch}/{own.epochs}", _shown(figures))
    return trainer.network


def _epoch(
    stage: Stage, trainer: Trainer, number: int, previous: IntArray | None
) -> tuple[dict[str, Any], IntArray]:
    """Embed, label, train; gives the figures of the epoch and its labels."""
    own, split = stage.settings.global_, stage.split
    seed = seed_of(stage.settings.seed, STAGE, number)
    features = compared = trainer.embed(np.arange(len(split)), f"Epoch {number}")
    if own.label_norm == "camera":
        compared = trainer.embed_by_camera(seed, f"Epoch {number}")
    with trainer.timed("labels"):
        facts: dict[str, Any] = {
            "cameras": split.cameras,
            "local": stage.local,
            "previous": previous,
            "pairs": stage.pairs,
            **split.when(),
        }
        if (local := own.local) is not None:
            facts |= stage.ranks.from_leader(lambda: _known_locally(compared, own, local, facts))
        evidence = evidence_of(compared, own, **facts, team=stage.ranks)
        stage.ranks.together(evidence.compute_together)
        labels = stage.ranks.from_leader(lambda: _label(stage, evidence))
        table = tabulate(split, labels, local=facts["local"])
        if stage.ranks.leads:
            write_labels(stage.run.label_file(number), table)
    epoch = Epoch(number, features, split.cameras, labels)
    rows = draw_batches(own, epoch, own.iters, np.random.default_rng(seed))
    batches = ([Part(0, batch, batch)] for batch in rows)
    loss = trainer.train(batches, [build_memory(epoch, own.memory)], seed, f"Epoch {number}")
    judged = {name: part.as_dict() for name, part in quality(table).items() if part is not None}
    figures = {"loss": loss, **_counts(labels), **({"quality": judged} if judged else {})}
    return {**figures, "seconds": dict(trainer.seconds)}, labels.labels


def _label(stage: Stage, evidence: Evidence) -> Labels:
    own = stage.settings.global_
    labels = label(evidence, own)
    if labels.n_clusters == 0:
        raise TrainingError(_nothing_left(labels, own))
    if labels.n_clusters == 1:
        stage.progress.warn(
            "There is one cluster only: nothing tells people apart in this epoch. Tighten the clustering "
            "(a smaller eps, more clusters: --set global.clusterer.NAME=VALUE)."
        )
    for note in labels.notes:
        stage.progress.warn(note)
    return labels


def _known_locally(
    features: Any, own: GlobalSettings, clusterer: Options, facts: dict[str, Any]
) -> dict[str, Any]:
    """Give the local labels that ``clusterer`` makes; of tracks, also the pairs that time tells apart."""
    cameras, tracks, frames = (facts[name] for name in ("cameras", "tracks", "frames"))
    alone = own.model_copy(update={"distance": own.local_distance or own.distance})
    local = label_cameras(features, alone, clusterer, cameras, tracks=tracks, frames=frames)
    if "tracks" not in clusterer.needs or frames is None:
        return {"local": local}
    overlapping = overlapping_tracks(cameras, local, tracks, frames)
    return {"local": local, "pairs": tell_apart(facts.get("pairs"), overlapping, len(local))}


def _of_one_camera(own: GlobalSettings) -> str:
    """Say what one camera leaves undone."""
    idle = ", ".join(f"{key}: {method.method}" for key, method in chosen(own) if method.needs == {"cameras"})
    as_without = f", and what compares them does nothing of its own ({idle})" if idle else ""
    return (
        f"All training images are of one camera: nothing can be learnt across cameras{as_without}. For that, "
        "train on a data set of two cameras or more."
    )


def _nothing_left(labels: Labels, own: GlobalSettings) -> str:
    n, clusters = len(labels.labels), int(labels.clusters.max(initial=-1)) + 1
    found = f"the refiners left nothing of {clusters} clusters"
    if clusters == 0:
        options = own.clusterer.model_dump(exclude_none=True)
        found = f"{own.clusterer.method} with {options} found no cluster"
    return (
        f"Every one of the {n} images is noise: {found}. Finished epochs, if any, are saved, but --resume "
        "would lead here again: start a new run with a looser clustering (a larger eps, a smaller "
        "min_similarity or min_samples: --set global.clusterer.NAME=VALUE), or from better weights (--init; "
        "those of the last finished epoch, if any, are RUN/last.safetensors)."
    )


def _counts(labels: Labels) -> dict[str, Any]:
    """Count what the labels are; further figures are the methods' own."""
    return {
        "images": len(labels.labels),
        "clusters": int(labels.clusters.max(initial=-1)) + 1,
        "kept": int((labels.labels >= 0).sum()),
        "noise": int(((labels.clusters < 0) & (labels.labels < 0)).sum()),
        **labels.figures,
    }


def _selection(stage: Stage, network: Network, figures: dict[str, Any], epoch: int) -> float:
    """Give the number whose highest value marks the best epoch; looks at the test set only by choice."""
    chosen, every = stage.settings.select, stage.settings.eval_every
    if chosen == "test-map" or (every and epoch % every == 0):
        assert stage.score is not None, "the command gives a score where one is asked for"
        figures["test_mAP"] = stage.score(network)
    if chosen == "silhouette":
        return float(np.nan_to_num(figures["silhouette"], nan=-1.0))
    return float(figures["test_mAP"] if chosen == "test-map" else epoch)


def _shown(figures: dict[str, Any]) -> dict[str, float]:
    """Choose what the line of an epoch shows: counts, and what is known of the truth."""
    left_out = (
        "images",
        "kept",
        "silhouette",
        "camera_nmi",
        "pairs_same",
        "pairs_different",
        "quality",
        "seconds",
    )
    shown = {name: value for name, value in figures.items() if name not in left_out}
    if "refined" in figures.get("quality", ()):
        shown["nmi"] = figures["quality"]["refined"]["nmi"]
    return shown
