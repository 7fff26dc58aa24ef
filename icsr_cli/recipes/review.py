"""What a person is asked about the labels of a run, and what the answers make of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from icsr_cli.config.schema import GlobalSettings, Settings
from icsr_cli.errors import RunError, UsageError
from icsr_cli.labelling import KnownEvidence, evidence_of, label
from icsr_cli.labelling.constraints import contradictions, groups_of
from icsr_cli.labelling.questions import Questions, choose
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import Embedder
from icsr_cli.recipes.steps import Engine
from icsr_cli.runs import RunFolder, read_labels
from icsr_cli.runs.pairs import ANSWERS, Answer, answers_of, kept_pairs, read_pairs
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, Dataset, IntArray, Labels, Pairs, Split


@dataclass(frozen=True)
class Review:
    """The labels of a run and what is known of its training images.

    ``clusters`` int64 (n,): those of the run's last epoch, before the refiners, in the order of ``split``.
    ``asking``: what the questions are chosen by: the same features, normalised per camera, for a network
    that mixes up cameras with people does not see itself who is seen by two. ``pairs``: what was said
    already, to the run or in a file.
    """

    split: Split
    clusters: IntArray
    evidence: KnownEvidence
    asking: KnownEvidence
    settings: GlobalSettings
    pairs: Pairs

    def ask(self, count: int) -> Questions:
        """Choose the pairs that are worth most, ``count`` at most."""
        return choose(self.clusters, self.asking.similarity, self.split.cameras, count, self.pairs)

    def known(self) -> list[Answer]:
        """Give what is known already as the lines of a file."""
        return answers_of(self.pairs, self.split.paths)

    def relabel(self, answers: Sequence[Answer] = ()) -> Labels:
        """Run the chain on the features as they are, with what is known and with ``answers``."""
        names = "what is known already", "what the identities say"
        pairs = _joined(self.pairs, pairs_of(answers, self.split), names, self.split.paths)
        return label(replace(self.evidence, pairs=pairs if len(pairs) else None), self.settings)


def open_review(
    run: RunFolder,
    dataset: Dataset,
    settings: Settings,
    data_root: Path,
    engine: Engine,
    progress: Progress,
    *,
    pairs: Path | None = None,
    pairs_labels: Path | None = None,
) -> Review:
    """Embed the training images of a global run by its network, and read its labels.

    ``settings`` are its own. ``pairs``: a file of answers, beside what the run knows itself;
    ``pairs_labels``: the run, or label file, whose clusters that file names.

    Raises:
        UsageError: the run is of the cam stage, or the file cannot be used, or contradicts the run.
        RunError: it has no labels or no network yet, or they are of other images.
    """
    if run.stage != "global":
        raise UsageError(f"{run.path} is a run of the cam stage; the labels of a global run are reviewed.")
    split = dataset.train
    clusters, local = _labels(run, split)
    kept = kept_pairs(run.path, split.paths, run.info().get("pairs"))
    known = pairs_of((), split) if kept is None else kept
    given = read_pairs(pairs, split.paths, pairs_labels)
    names = f"the run's own pairs ({run.path / 'pairs.csv'})", str(pairs)
    both = known if given is None else _joined(known, given, names, split.paths)
    embedder = Embedder.of_run(run, dataset, settings, data_root, engine, progress)
    pixels = embedder.pixels("train")
    if settings.global_.label_norm == "camera":
        features = embedder.embed_by_camera(pixels, split.cameras, "Train features by camera")
    else:
        features = embedder.embed(pixels, "Train features")
    several = len(np.unique(split.cameras)) > 1
    debiased = settings.global_.model_copy(update={"normalise": "full"}) if several else settings.global_
    facts = {"cameras": split.cameras, "local": local, "pairs": both if len(both) else None, **split.when()}
    evidence = evidence_of(features, settings.global_, **facts)
    asking = evidence_of(features, debiased, cameras=split.cameras)
    return Review(split, clusters, evidence, asking, settings.global_, both)


def truth_of(questions: Questions, split: Split) -> list[Answer]:
    """Answer from the identities; ``unsure`` where nobody knows one of the two."""
    identities, paths = split.identities, split.paths
    answers = []
    for first, second in zip(questions.first.tolist(), questions.second.tolist(), strict=True):
        one, two = int(identities[first]), int(identities[second])
        word = "unsure" if UNKNOWN_IDENTITY in (one, two) else "same" if one == two else "different"
        answers.append(Answer(paths[first], paths[second], word))
    return answers


def pairs_of(answers: Sequence[Answer], split: Split) -> Pairs:
    """Give answers that name images of ``split`` as pairs of their numbers."""
    rows = {path: row for row, path in enumerate(split.paths)}
    found = [
        [(rows[one.first], rows[one.second]) for one in answers if one.answer == word] for word in ANSWERS
    ]
    return Pairs(*(np.array(ends, dtype=np.int64).reshape(-1, 2) for ends in found))


def _labels(run: RunFolder, split: Split) -> tuple[IntArray, IntArray | None]:
    """Give cluster and local cluster of each image in the last labels of the run, -1 where there is none."""
    table = read_labels(file := run.find_labels())
    if not (table.places(split) >= 0).any():
        raise RunError(f"{file} holds none of the training images: it is of another data set.")
    clusters, local = (table.of_images(split, column) for column in ("clusters", "local_clusters"))
    return clusters, local if (local != NO_CLUSTER).any() else None


def _joined(one: Pairs, other: Pairs, names: tuple[str, str], paths: Sequence[str]) -> Pairs:
    """Put pairs of the images ``paths`` together; what both say is there once.

    Raises UsageError where they contradict each other; ``names`` says whose they are.
    """
    ends = (np.concatenate([getattr(one, word), getattr(other, word)]) for word in ANSWERS)
    both = Pairs(*(np.unique(np.sort(each, axis=1), axis=0) for each in ends))
    wrong = both.different[contradictions(both, groups_of(both, len(paths)))]
    if len(wrong):
        first, second = wrong[0].tolist()
        apart = (np.sort(one.different, axis=1) == wrong[0]).all(axis=1).any()
        differ, same = names if apart else names[::-1]
        raise UsageError(
            f"{names[1]} and {names[0]} contradict each other: {paths[first]!r} and {paths[second]!r} are "
            f"different by {differ} and the same by way of {same}. "
            "Mend the wrong one; a run keeps its own pairs: train a new one to be rid of them."
        )
    return both
