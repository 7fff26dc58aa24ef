"""The settings of a run, typed. What the numbers mean is in docs/settings.md; their source is the paper.

A part of the method is chosen by name, with keys of its own: ``clusterer: {method: dbscan, eps: 0.5}``
(``icsr_cli.choices``).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from icsr_cli.choices import Choice, Keys, Options, whole_fault
from icsr_cli.types import Size

T = TypeVar("T")

Clusterer = Annotated[Options, Choice("clusterers", "dbscan")]
Distance = Annotated[Options, Choice("distances", "jaccard")]
LocalClusterer = Annotated[Options | None, Choice("clusterers", "tracks")]
LocalDistance = Annotated[Options | None, Choice("distances", "cosine")]
Refiner = Annotated[Options, Choice("refiners", "discard")]
Sampler = Annotated[Options, Choice("samplers", "identity")]
Optimizer = Annotated[Options, Choice("optimizers", "adam")]


def _several(given: Any) -> Any:
    """One choice is a list of one."""
    return given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)


def _fewest(given: tuple[Options, ...]) -> Any:
    """Write a list of one as that one."""
    return given[0].dump() if len(given) == 1 else [one.dump() for one in given]


Several = Annotated[tuple[T, ...], BeforeValidator(_several), PlainSerializer(_fewest), Field(min_length=1)]
Memories = Several[Annotated[Options, Choice("memories", "clusters")]]


def _beneath(method: str, unless: tuple[str, ...] = (), **published: Any) -> BeforeValidator:
    """Lay a stage's own values beneath a choice of ``method``, which is meant where none is named.

    Not where one of the keys ``unless`` has a value: they stand for the same.
    """

    def laid(given: Any) -> Any:
        named = {"method": given} if isinstance(given, str) else given
        if not isinstance(named, dict) or named.get("method", method) != method:
            return given
        if any(named.get(key) is not None for key in unless):
            return given
        return {**published, **named}

    return BeforeValidator(laid)


CamClusterer = Annotated[
    Options,
    Choice("clusterers", "average-linkage"),
    _beneath("average-linkage", ("n_clusters", "distance_threshold"), images_per_cluster=5),
]
CamMemories = Several[Annotated[Options, Choice("memories", "clusters"), _beneath("clusters", momentum=0.2)]]


class Section(Keys):
    """A part of the settings."""

    model_config = ConfigDict(populate_by_name=True, validate_default=True)


class ImageSettings(Section):
    """The size every image is brought to, once, in pixels, and how it is kept.

    ``store``: ``raw`` pixels, or ``jpeg`` (quality 95, all colour kept), which is decoded at every use.
    """

    height: int = Field(256, ge=16, le=2048)
    width: int = Field(128, ge=16, le=2048)
    store: Literal["raw", "jpeg"] = "raw"

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width


def _architecture(arch: str) -> Any:
    """Find an architecture by name; the catalogue loads torch, so it is not at the top."""
    return import_module("icsr_cli.models.catalogue").architecture(arch)


#: What pixels are normalised by: a name, or a mean and a spread each for red, green and blue.
_Mean = Annotated[float, Field(ge=0, le=1)]
_Spread = Annotated[float, Field(ge=1e-3, le=1)]
_Named = Literal["imagenet", "half", "clip", "luperson"]


class ModelSettings(Section):
    """The network.

    ``weights`` is ``imagenet`` (or ``pretrained``: what its family has), ``none`` (random), a file, a run,
    whose network it then is, or, in the global stage, ``cam``: the shared network of the cam stage.
    ``pooling``: by default what suits the architecture. ``mean`` and ``std`` of the pixels: a name or three
    numbers; by default what the weights or the family say. ``drop_path``: rate of stochastic depth.
    ``freeze``: parts of the backbone whose parameters do not train.
    """

    arch: str = "resnet50"
    num_features: int = Field(0, ge=0)
    pooling: Literal["gem", "avg", "max", "cls"] = Field(
        default_factory=lambda given: _architecture(given.get("arch", "resnet50")).pooling
    )
    stripes: int = Field(1, ge=1, le=16)
    weights: str = "imagenet"
    mean: _Named | tuple[_Mean, _Mean, _Mean] | None = None
    std: _Named | tuple[_Spread, _Spread, _Spread] | None = None
    drop_path: float = Field(0.0, ge=0, lt=1)
    freeze: tuple[str, ...] = ()

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        _architecture(arch)
        return arch

    @model_validator(mode="after")
    def _fits(self) -> ModelSettings:
        own, wrong = _architecture(self.arch), {}
        if self.drop_path and not own.has_drop_path:
            wrong["drop_path"] = f"{self.arch} has no stochastic depth; set it to 0"
        if self.pooling == "cls" and own.pooling != "cls":
            wrong["pooling"] = f"cls takes the class token, and {self.arch} has none; set it to {own.pooling}"
        elif self.pooling == "cls" and self.stripes > 1:
            wrong["stripes"] = "the pooling cls is one token; set it to 1, or pooling to avg"
        if wrong:  # each by its own key, so that it is said where its value came from
            raise ValidationError.from_exception_data(
                "model",
                [{"type": whole_fault(why), "loc": (key,), "input": None} for key, why in wrong.items()],
            )
        return self


class AugmentationSettings(Section):
    """Random changes of a training image; ``erase`` and ``flip`` are probabilities, ``pad`` is pixels.

    ``border`` is what the image is padded with: ``black`` as published, or its ``edge``, repeated.
    """

    flip: float = Field(0.5, ge=0, le=1)
    pad: int = Field(10, ge=0)
    border: Literal["black", "edge"] = "black"
    erase: float = Field(0.5, ge=0, le=1)


class GlobalModelSettings(ModelSettings):
    """The network of the global stage; published: with instance normalisation."""

    arch: str = "resnet_ibn50a"


class StageSettings(Section):
    """What both stages share.

    ``bn_group``: BatchNorm in training over contiguous groups of so many images; 0: over the batch.
    ``accumulate``: parts in which the backbone computes a batch that does not fit into memory.
    ``checkpoint``: its blocks compute again what the way back needs. ``clip``: the longest gradient, by its
    norm; 0: any.
    ``normalise``: what is taken off each camera's features before they are compared (arXiv 2502.10195). A
    ``memory`` is one choice, or several whose losses are added by their weights.
    """

    model: ModelSettings = Field(default_factory=ModelSettings)
    epochs: int = Field(50, ge=1)
    iters: int = Field(200, ge=1)
    batch_size: int = Field(64, ge=2)
    num_instances: int = Field(4, ge=1)
    bn_group: int = Field(0, ge=0)
    accumulate: int = Field(1, ge=1)
    checkpoint: bool = False
    clip: float = Field(0.0, ge=0, allow_inf_nan=False)
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    sampler: Sampler = "identity"  # type: ignore[assignment]
    optimizer: Optimizer = "adam"  # type: ignore[assignment]
    memory: Memories = "clusters"  # type: ignore[assignment]
    normalise: Literal["none", "centre", "full", "auto"] = "none"
    distance: Distance = "jaccard"  # type: ignore[assignment]
    clusterer: Clusterer = "dbscan"  # type: ignore[assignment]
    refiners: Annotated[tuple[Refiner, ...], BeforeValidator(_several)] = ()

    @property
    def spares_memory(self) -> bool:
        """Whether a step computes more than once, or in parts, for want of memory."""
        return self.checkpoint or self.accumulate > 1

    @model_validator(mode="after")
    def _check_batch(self) -> StageSettings:
        if self.batch_size % self.num_instances:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of num_instances {self.num_instances}"
            )
        # A group of a whole batch or more is the batch; one image has no statistics.
        fits = self.bn_group % self.num_instances == 0 and self.batch_size % max(1, self.bn_group) == 0
        if 0 < self.bn_group < self.batch_size and not (fits and self.bn_group > 1):
            raise ValueError(
                f"bn_group {self.bn_group} must be 2 or more, a multiple of num_instances "
                f"{self.num_instances} and divide batch_size {self.batch_size}; 0 is the whole batch"
            )
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate {self.accumulate} is more parts than batch_size {self.batch_size} has images"
            )
        return self


class CamSettings(StageSettings):
    """The cam stage: one network per camera as published, or one shared by all cameras."""

    network: Literal["per-camera", "shared"] = "per-camera"
    epochs: int = Field(20, ge=1)
    iters: int = Field(100, ge=1)
    memory: CamMemories = "clusters"  # type: ignore[assignment]
    clusterer: CamClusterer = "average-linkage"  # type: ignore[assignment]
    cameras_per_batch: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _check_shares(self) -> CamSettings:
        if self.model.weights == "cam":
            raise ValueError("model.weights: cam is for the global stage, which begins from the cam stage's")
        if self.network == "shared" and self.batch_size % (self.cameras_per_batch * self.num_instances):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {self.cameras_per_batch} cameras "
                f"(cameras_per_batch) with {self.num_instances} images per identity (num_instances)"
            )
        return self


class GlobalSettings(StageSettings):
    """The global stage: clustering over all cameras.

    ``local``: the clusterer that makes the local labels, of each camera's images anew in each epoch; without
    one they are those of a cam run. ``local_distance``: what it compares the images by, if not as all are.
    ``label_norm``: BatchNorm statistics of the features that labels are made of: those of training
    (``running``), or of each camera's own images (``camera``), for which all images are embedded once more.
    """

    model: GlobalModelSettings = Field(default_factory=GlobalModelSettings)
    local: LocalClusterer = None
    local_distance: LocalDistance = None
    label_norm: Literal["running", "camera"] = "running"

    @model_validator(mode="after")
    def _check_local(self) -> GlobalSettings:
        if self.local is None and self.local_distance is not None:
            raise ValueError(
                "local_distance is for labels that local makes anew, and local names no clusterer"
            )
        return self


class EvaluationSettings(Section):
    """Extraction batch, and the numbers of the re-ranking."""

    batch_size: int = Field(256, ge=1)
    k1: int = Field(20, ge=1)
    k2: int = Field(6, ge=1)
    lambda_value: float = Field(0.3, ge=0, le=1)


class Settings(Section):
    """Everything a run is made from; it is written into the run folder as it was resolved.

    ``method``: the settings file the rest began from. ``stages``: those that ``icsr train`` runs. ``select``
    tells which epoch's network is ``best``: the last, the one whose clustering had the best silhouette, or (a
    look at the answers, only by choice) the best mAP on the test set. ``sync_bn``: with several processes,
    BatchNorm over all their images. ``cuda_graph``: one process with a GPU records a step of the network, and
    plays it (``recipes.recorded``). ``compile``: the network through ``torch.compile``, in its place.
    """

    dataset: str = ""
    method: str = "icsr"
    stages: tuple[Literal["cam", "global"], ...] = ("cam", "global")
    seed: int = Field(1, ge=0, lt=2**32)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    sync_bn: bool = False
    cuda_graph: bool = True
    compile: bool = False
    select: Literal["last", "silhouette", "test-map"] = "last"
    eval_every: int = Field(0, ge=0)
    image: ImageSettings = Field(default_factory=ImageSettings)
    cam: CamSettings = Field(default_factory=CamSettings)
    global_: GlobalSettings = Field(default_factory=GlobalSettings, alias="global")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        if stages not in (("cam",), ("global",), ("cam", "global")):
            raise ValueError("the stages are [cam], [global] or [cam, global]")
        return stages

    @model_validator(mode="after")
    def _check_compile(self) -> Settings:
        for stage, own in (("cam", self.cam), ("global", self.global_)):
            if self.compile and own.spares_memory:
                sparing = "checkpoint" if own.checkpoint else "accumulate"
                raise ValueError(f"compile does not go with {stage}.{sparing}; leave one of them out")
        return self

    def of(self, stage: str) -> CamSettings | GlobalSettings:
        """Give the settings of a stage, ``cam`` or ``global``."""
        return self.cam if stage == "cam" else self.global_

    def dump(self, stage: str | None = None) -> dict[str, Any]:
        """Give plain dictionaries, with the keys of the YAML files; of one stage without the other's."""
        unused = {"cam": {"global_"}, "global": {"cam"}}.get(stage or "")
        return self.model_dump(by_alias=True, mode="json", exclude=unused)
