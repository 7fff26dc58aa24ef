"""The settings of a run, typed. What the numbers mean is in docs/settings.md; their source is the paper."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = float | int | str | bool | None


class Section(BaseModel):
    """A part of the settings: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())


class ImageSettings(Section):
    """The size every image is brought to, once, in pixels."""

    height: int = Field(256, ge=16, le=2048)
    width: int = Field(128, ge=16, le=2048)


class ModelSettings(Section):
    """The network.

    ``weights`` is ``imagenet``, ``none`` (random), a file, or, in the global stage, ``cam``:
    the shared network of the cam stage.
    """

    arch: str = "resnet50"
    num_features: int = Field(0, ge=0)
    pooling: Literal["gem", "avg", "max"] = "gem"
    stripes: int = Field(1, ge=1, le=16)
    weights: str = "imagenet"


class AugmentationSettings(Section):
    """Random changes of a training image; ``erase`` and ``flip`` are probabilities, ``pad`` is pixels.

    ``border`` is what the image is padded with: ``black`` as published, or its ``edge``, repeated.
    """

    flip: float = Field(0.5, ge=0, le=1)
    pad: int = Field(10, ge=0)
    border: Literal["black", "edge"] = "black"
    erase: float = Field(0.5, ge=0, le=1)


class OptimizerSettings(Section):
    """Adam with a step schedule: the rate is multiplied by ``gamma`` every ``step_size`` epochs."""

    lr: float = Field(3.5e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    step_size: int = Field(20, ge=1)
    gamma: float = Field(0.1, gt=0, le=1)


class MemorySettings(Section):
    """The cluster memory: temperature of the softmax, share of the old centroid in an update."""

    temperature: float = Field(0.05, gt=0)
    momentum: float = Field(0.1, ge=0, lt=1)
    hard: bool = False


class DistanceSettings(Section):
    """The k-reciprocal Jaccard similarity: neighbourhood and smoothing."""

    k1: int = Field(30, ge=1)
    k2: int = Field(6, ge=1)


class ClusteringSettings(Section):
    """A clusterer by its name, and its own options (``eps``, ``n_clusters``, ...)."""

    method: str = "average-linkage"
    options: dict[str, Scalar] = Field(default_factory=dict)


class RefinementSettings(Section):
    """Which wrong images leave the global clusters, and how the information node is chosen."""

    method: Literal["none", "discard", "split"] = "discard"
    node: Literal["highest", "last-above-mean"] = "highest"
    k: int = Field(15, ge=2)
    min_similarity: float = Field(0.5, ge=-1, le=1)


class StageSettings(Section):
    """What both stages share."""

    model: ModelSettings = ModelSettings()
    epochs: int = Field(50, ge=1)
    iters: int = Field(200, ge=1)
    batch_size: int = Field(64, ge=2)
    num_instances: int = Field(4, ge=1)
    augmentation: AugmentationSettings = AugmentationSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    memory: MemorySettings = MemorySettings()
    distance: DistanceSettings = DistanceSettings()

    @model_validator(mode="after")
    def _check_batch(self) -> StageSettings:
        if self.batch_size % self.num_instances:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of num_instances {self.num_instances}"
            )
        return self


class CamSettings(StageSettings):
    """The cam stage: one network per camera as published, or one shared by all cameras.

    Each camera's images are clustered into ``n_c // images_per_cluster`` clusters.
    """

    network: Literal["per-camera", "shared"] = "per-camera"
    epochs: int = Field(20, ge=1)
    iters: int = Field(100, ge=1)
    memory: MemorySettings = MemorySettings(momentum=0.2)
    images_per_cluster: int = Field(5, ge=2)
    cameras_per_batch: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _check_shares(self) -> CamSettings:
        if self.network == "shared" and self.batch_size % (self.cameras_per_batch * self.num_instances):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {self.cameras_per_batch} cameras "
                f"(cameras_per_batch) with {self.num_instances} images per identity (num_instances)"
            )
        return self


class GlobalSettings(StageSettings):
    """The global stage: clustering over all cameras, refined by the local labels."""

    model: ModelSettings = ModelSettings(arch="resnet_ibn50a")
    clustering: ClusteringSettings = ClusteringSettings()
    refinement: RefinementSettings = RefinementSettings()


class EvaluationSettings(Section):
    """Extraction batch, and the numbers of the re-ranking."""

    batch_size: int = Field(256, ge=1)
    k1: int = Field(20, ge=1)
    k2: int = Field(6, ge=1)
    lambda_value: float = Field(0.3, ge=0, le=1)


class Settings(Section):
    """Everything a run is made from; it is written into the run folder as it was resolved.

    ``select`` tells which epoch's network is ``best``: the last, the one whose clustering had the best
    silhouette, or (a look at the answers, only by choice) the best mAP on the test set. ``sync_bn``: with
    several processes, BatchNorm over all their images. ``compile``: the network through ``torch.compile``.
    """

    dataset: str = ""
    seed: int = Field(1, ge=0, lt=2**32)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    sync_bn: bool = False
    compile: bool = False
    select: Literal["last", "silhouette", "test-map"] = "last"
    image: ImageSettings = ImageSettings()
    cam: CamSettings = CamSettings()
    global_: GlobalSettings = Field(GlobalSettings(), alias="global")
    evaluation: EvaluationSettings = EvaluationSettings()

    def dump(self) -> dict[str, Any]:
        """Give plain dictionaries, with the keys of the YAML files."""
        return self.model_dump(by_alias=True, mode="json")
