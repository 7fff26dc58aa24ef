"""What a page is made of: runs, their labels, pictures and network, each opened when a page asks for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from icsr_cli import config, datasets
from icsr_cli.config import Settings
from icsr_cli.datasets import index
from icsr_cli.errors import DatasetError, UsageError
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import Embedder, load_pixels
from icsr_cli.recipes.steps import choose_engine
from icsr_cli.reports.pictures import Pictures
from icsr_cli.runs import LabelTable, RunFolder, read_labels
from icsr_cli.runs.quality import one_number_per_cluster
from icsr_cli.types import Dataset


@dataclass(frozen=True)
class LabelSource:
    """Where labels come from: for the head of the page. ``epochs`` are the run's metrics, if any."""

    name: str
    file: str
    stage: str
    epochs: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]


@dataclass
class View:
    """Runs to look at (none for a label file that stands alone), and what was asked for.

    ``dataset``: its name, where it is not the run's. ``rankings``: queries of each kind that are shown.
    ``draw_map``: whether a map of the embedding is. ``seed``: of random queries and the map. A page may add
    to ``facts`` what ``--json`` is to say of it.
    """

    runs: tuple[RunFolder, ...]
    data_root: Path
    dataset: str | None = None
    device: str | None = None
    progress: Progress = field(default_factory=Progress)
    rankings: int = 4
    draw_map: bool = True
    seed: int = 1
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> RunFolder:
        """The run. Raises UsageError where there are several: what asks for one shows one."""
        if len(self.runs) > 1:
            raise UsageError(
                f"This page is of one run, and {len(self.runs)} are named. Name one, or compare them: "
                "--page compare."
            )
        return self.runs[0]

    @cached_property
    def data(self) -> Dataset:
        """The data set. Raises DatasetError, or UsageError where nobody has named it."""
        name = self.dataset
        if name is None and self.runs:
            name = self.run.dataset
        if name is None:
            raise UsageError("Nobody has said of what these labels are: name the data set with -d.")
        return datasets.load(name, self.data_root)

    @cached_property
    def settings(self) -> Settings:
        """What the settings of the run say of its network, or those of the data set, as it was prepared."""
        if self.runs:
            return config.load_run(self.run.path / "settings.yaml", sections=config.OF_THE_NETWORK)
        prepared = index.head(self.data_root, self.data.name)["details"]
        return config.load_for(self.data, beneath={"image": {"store": prepared.get("store", "raw")}})

    @cached_property
    def embedder(self) -> Embedder:
        """The network of the run and the data set. Raises DatasetError, RunError and ModelError."""
        engine = choose_engine(self.device, self.settings.precision)
        return Embedder.of_run(self.run, self.data, self.settings, self.data_root, engine, self.progress)

    @cached_property
    def labels(self) -> LabelTable | None:
        """The newest labels of the run; None before its first epoch is finished."""
        files = self.run.label_files()
        return one_number_per_cluster(read_labels(files[-1])) if files else None

    @property
    def pictures(self) -> Pictures | None:
        """The pictures of the training images; None where there are none, which ``source`` says."""
        return self._pictures[0]

    @cached_property
    def _pictures(self) -> tuple[Pictures | None, tuple[str, ...]]:
        try:
            place = self.data_root, choose_engine("cpu", "fp32"), self.progress
            pixels = load_pixels(self.data, "train", self.settings.image, *place)
            return Pictures(self.data.train.paths, pixels), ()
        except (DatasetError, UsageError) as error:
            self.progress.warn(why := f"There are no pictures. {error}")
            return None, (why,)

    def source(self, file: Path) -> LabelSource:
        """Say where the labels in ``file`` come from, and what is odd about them."""
        notes = self._pictures[1]
        if not self.runs:
            return LabelSource(file.name, str(file), "", (), notes)
        status = self.run.info().get("status")
        if status != "finished":
            notes += (f"The state of this run is {status}: these are the labels so far, and more may come.",)
        name = f"{self.run.dataset}, {self.run.stage} run {self.run.path.name}, {file.stem}"
        return LabelSource(name, str(file), self.run.stage, self.run.metrics(), notes)
