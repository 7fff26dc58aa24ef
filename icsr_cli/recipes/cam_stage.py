"""The cam stage: reliable labels within each camera (arXiv 2304.12634, section 2.1).

As published every camera has a network of its own. The shared network is ours: one network, which each
epoch clusters every camera's images by its own features and trains with one memory per camera.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icsr_cli.config.schema import CamSettings
from icsr_cli.errors import TrainingError, counted, some
from icsr_cli.labelling import evidence_of, label
from icsr_cli.labelling.constraints import within
from icsr_cli.progress import Task
from icsr_cli.recipes.camera_labels import CameraLabels, figures_of, join, restore, states_of
from icsr_cli.recipes.distributed import ALONE
from icsr_cli.recipes.steps import Batch, Part, build_memory, draw_batches, seed_of
from icsr_cli.recipes.trainer import Stage, Trainer
from icsr_cli.runs import LabelTable, write_labels
from icsr_cli.threads import at_once
from icsr_cli.types import Epoch, IntArray, Labels

STAGE = 1
#: Fewer images than this cannot be told apart into clusters: they get no local label.
FEWEST_IMAGES = 4


def train_cam_stage(stage: Stage, cameras: Sequence[int] | None = None) -> LabelTable:
    """Train on every camera (or on ``cameras``) and give the local labels, also in ``labels/local.csv``.

    A run that was interrupted goes on after its last finished epoch; finished cameras are skipped.

    Raises:
        TrainingError: where no camera has enough images, or a loss is not finite.
        RunError: where the network of finished training, or part of a checkpoint, is gone.
        Interrupted: on SIGINT or SIGTERM; every finished epoch is saved.
    """
    chosen = sorted(set(stage.split.cameras.tolist())) if cameras is None else sorted(set(cameras))
    found = [CameraLabels.none(stage.split, camera) for camera in chosen]
    if stage.ranks.leads:
        _warn_of_small(stage, found)
    trainable = [labels for labels in found if len(labels.rows) >= FEWEST_IMAGES]
    if not trainable:
        raise TrainingError(f"No camera has {FEWEST_IMAGES} images or more: there is nothing to train on.")
    if stage.settings.cam.network == "shared":
        with _whole_run(stage, 1) as whole:
            _train_network(stage, trainable, whole, "shared", "Shared network", 0)
    else:
        _train_cameras(stage, trainable)
    table = join(stage.split, found)
    if stage.ranks.leads:
        write_labels(stage.run.labels / "local.csv", table)
    return table


def _warn_of_small(stage: Stage, found: Sequence[CameraLabels]) -> None:
    """Say once which cameras have too few images to be clustered, or fewer than are compared with each."""

    def named(fewest: int, most: int) -> str:
        sizes = {stage.run.camera_name(one.camera): len(one.rows) for one in found}
        few = [f"camera {name} has {counted(n, 'image')}" for name, n in sizes.items() if fewest <= n < most]
        return some(few)

    if none := named(0, FEWEST_IMAGES):
        stage.progress.warn(
            f"{none}, too few to cluster: they get no local label, and the refinement leaves them alone."
        )
    compared = getattr(stage.settings.cam.distance, "k1", 0)
    if few := named(FEWEST_IMAGES, compared + 1):
        stage.progress.warn(
            f"{few}, where {compared} neighbours are compared (cam.distance.k1): there all images are "
            "neighbours of each other, and the local labels tell little of who is who."
        )


def _train_cameras(stage: Stage, found: Sequence[CameraLabels]) -> None:
    """Train a network for each camera. Cameras are independent: every rank takes whole ones, on its own."""
    cost = [
        len(labels.rows) + 3 * stage.settings.cam.iters * stage.settings.cam.batch_size for labels in found
    ]
    mine = [found[job] for job in stage.ranks.take_largest_first(cost)]
    with _whole_run(stage, len(mine)) as whole:
        for labels in mine:
            camera = labels.camera
            name, title = f"camera_{camera}", f"Camera {stage.run.camera_name(camera)}"
            _train_network(replace(stage, ranks=ALONE), [labels], whole, name, title, camera + 1)
    for states in stage.ranks.join(states_of(mine)):
        restore([labels for labels in found if str(labels.camera) in states], states)


def _whole_run(stage: Stage, networks: int) -> Task:
    """Open the bar that tells the time left of all networks."""
    return stage.progress.task("Cam stage", networks * stage.settings.cam.epochs, "epochs")


def _train_network(
    stage: Stage, found: Sequence[CameraLabels], whole: Task, name: str, title: str, seed_word: int
) -> None:
    """Train one network on the cameras of ``found``: one camera as published, or all of them."""
    own, run = stage.settings.cam, stage.run
    state = run.load_state(name, "labels")
    done = 0 if state is None else min(state["epoch"], own.epochs)
    if state is not None:
        restore(found, state["labels"])
        whole.advance(done)
    if stage.ranks.leads:
        run.go_on(done, (state or {}).get("figures"), name)
    network = "last" if name == "shared" else name
    if done == own.epochs:
        run.check_network(name, network)
        stage.progress.note(f"{title} is finished already.")
        return
    trainer = Trainer(stage, own, seed_of(stage.settings.seed, STAGE, seed_word), state)
    for epoch in range(done + 1, own.epochs + 1):
        figures = _epoch(stage, trainer, found, title, (seed_word, epoch))
        whole.advance()
        if not stage.ranks.leads:
            continue
        line = {"part": name, "epoch": epoch, **figures}
        run.record(line)
        # A finished network needs no optimiser any more; its weights come before the state that says so.
        if epoch == own.epochs:
            trainer.save(network)
        rest = trainer.state() if epoch < own.epochs else {}
        kept = {"epoch": epoch, "labels": states_of(found), "figures": json.dumps(line)}
        run.save_state(name, {**kept, **rest})
        shown: dict[str, float] = {
            key: figures[key] for key in ("loss", "clusters", "silhouette", "nmi") if key in figures
        }
        stage.progress.report(f"{title} epoch {epoch}/{own.epochs}", shown)


def _epoch(
    stage: Stage, trainer: Trainer, found: Sequence[CameraLabels], title: str, place: tuple[int, int]
) -> dict[str, Any]:
    """Label each camera's images by the network's features, then train on the clusters."""
    seed_word, number = place
    seed = seed_of(stage.settings.seed, STAGE, seed_word, number)
    features = trainer.embed(np.concatenate([labels.rows for labels in found]), title)
    with trainer.timed("labels"):
        parts = torch.split(features, [len(labels.rows) for labels in found])
        current = _label_together(stage, parts, [labels.rows for labels in found])
        for labels, camera_labels in zip(found, current, strict=True):
            labels.offer(camera_labels.labels, camera_labels.figures["silhouette"], number)
        epochs = [
            Epoch(number, own, np.full(len(own), labels.camera, dtype=np.int64), camera_labels)
            for labels, own, camera_labels in zip(found, parts, current, strict=True)
        ]
        memories = [build_memory(epoch, stage.settings.cam.memory) for epoch in epochs]
    batches = _batches(stage.settings.cam, found, epochs, np.random.default_rng(seed))
    loss = trainer.train(batches, memories, seed, f"{title} epoch {number}")
    return {"loss": loss, **figures_of(stage.split, found, current), "seconds": dict(trainer.seconds)}


def _label_together(stage: Stage, parts: Sequence[Tensor], rows: Sequence[IntArray]) -> list[Labels]:
    """Label each camera's features, each rank its share of the cameras; all know all labels after it."""

    def label_camera(camera: int) -> Labels:
        one = np.zeros(len(parts[camera]), dtype=np.int64)
        pairs = None if stage.pairs is None else within(stage.pairs, rows[camera], len(stage.split))
        facts = {"cameras": one, "pairs": pairs, **stage.split.when(rows[camera])}
        labels = label(evidence_of(parts[camera], stage.settings.cam, **facts), stage.settings.cam)
        if stage.ranks.size == 1:
            stage.check()
        return labels

    own = stage.ranks.take_largest_first([len(part) for part in parts])
    mine = dict(zip(own, at_once(label_camera, own), strict=True))
    found = {camera: labels for each in stage.ranks.join(mine) for camera, labels in each.items()}
    return [found[camera] for camera in range(len(parts))]


def _batches(
    own: CamSettings, found: Sequence[CameraLabels], epochs: Sequence[Epoch], generator: np.random.Generator
) -> Iterator[Batch]:
    """Give the epoch's batches: equal shares of cameras_per_batch different cameras.

    A camera comes in proportion to its images, so that a small one is not learnt by heart.
    """
    share = min(own.cameras_per_batch, len(found)) if own.network == "shared" else 1
    turns = _camera_turns([len(labels.rows) for labels in found], own.iters, share, generator)
    batches = []
    for number, (labels, epoch) in enumerate(zip(found, epochs, strict=True)):
        drawn = draw_batches(own, epoch, int((turns == number).sum()), generator, share)
        batches.append(iter([Part(number, labels.rows[batch], batch) for batch in drawn]))
    for turn in turns:
        yield [next(batches[number]) for number in turn]


def _camera_turns(sizes: Sequence[int], iters: int, share: int, generator: np.random.Generator) -> IntArray:
    """Draw ``share`` different cameras for each batch, int64 (iters, share), weighted by their sizes.

    Sorting log weights plus Gumbel noise draws without replacement (Efraimidis and Spirakis 2006).
    """
    keys = np.log(np.asarray(sizes, dtype=np.float64)) + generator.gumbel(size=(iters, len(sizes)))
    return np.argsort(-keys, axis=1, kind="stable")[:, :share].astype(np.int64)
