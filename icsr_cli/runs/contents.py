"""What the files of a run must hold for those who read them; further keys are anybody's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from icsr_cli.errors import reason

#: Sums of floats may pass the ends by a rounding.
_Share = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Pixels = Annotated[int, Field(ge=1, lt=2**31)]
_Real = Annotated[float, Field(gt=-1e30, lt=1e30)]
_Camera = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


class _Part(BaseModel):
    """Whole numbers are no words, words no numbers; null is no value where nothing else is said."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class _Pairs(_Part):
    file: str
    sha256: str
    same: _Count
    different: _Count


class _Then(_Part):
    """What the command that began a cam run asks of the global stage behind it."""

    name: str | None
    method: str | None
    config: str | None
    config_sha256: str | None = None
    options: dict[str, Any]
    assignments: list[str]


class Info(_Part):
    """``run.json``."""

    stage: Literal["cam", "global"]
    dataset: str
    status: str = ""
    started: str = ""
    ended: str = ""
    reason: str = ""
    layout: str = ""
    dataset_settings: dict[str, Any] | None = None
    plugins: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    camera_names: list[str] = []
    cameras: list[_Count] | None = None
    local: str | None = None
    init: str | None = None
    group: str | None = None
    seeds: list[_Count] = []
    images: str | None = None
    best_epoch: _Count = 0
    after: str | None = None
    then: _Then | None = None
    pairs: _Pairs | None = None


class _Image(_Part):
    height: _Pixels = 1
    width: _Pixels = 1


class _Stage(_Part):
    epochs: _Count = 0
    model: dict[str, Any] = {}


class Written(_Part):
    """``settings.yaml``, as far as it is read without the methods that it names."""

    dataset: str = ""
    method: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    image: _Image = _Image()
    cam: _Stage = _Stage()
    global_: _Stage = Field(_Stage(), alias="global")


class Made(_Part):
    """``environment.json``, as far as more than a list is made of it."""

    gpus: list[str] = []


class _Quality(_Part):
    nmi: _Share
    pairwise_f: _Share
    bcubed_f: _Share = 0


class _CameraEpoch(_Part):
    clusters: _Count = 0
    quality: _Quality | None = None


class Epoch(_Part):
    """A line of ``metrics.jsonl``; the figures of a method are its own."""

    epoch: _Count
    part: str = ""
    loss: _Real = 0
    images: _Count = 0
    clusters: _Count = 0
    kept: _Count = 0
    noise: _Count = 0
    discarded: _Count = 0
    nmi: _Share | None = None
    quality: dict[str, _Quality] = {}
    cameras: dict[_Camera, _CameraEpoch] = {}
    seconds: dict[str, Annotated[_Real, Field(ge=0)]] = {}


_Distance = Annotated[float, Field(ge=0, le=2)]


class _Threshold(_Part):
    name: str
    distance: _Distance


class _Evaluation(_Part):
    dataset: str = ""
    weights: str = ""
    protocol: str = ""
    rerank: str | None = None
    debias: str | None = None
    estimated: bool = False
    mAP: _Share | None = None  # noqa: N815 - as it is written
    rank_1: _Share = 0
    rank_5: _Share = 0
    rank_10: _Share = 0
    mINP: _Share = 0  # noqa: N815
    thresholds: list[_Threshold] = []

    @model_validator(mode="after")
    def _says_something(self) -> _Evaluation:
        if self.mAP is None and not self.estimated:
            raise ValueError("an entry without mAP")
        return self


class Evaluations(_Part):
    """``evaluation.json``."""

    evaluations: list[_Evaluation]


class Thresholds(_Part):
    """``thresholds`` in the metadata of an exported file."""

    dataset: str
    estimated: bool
    distances: dict[str, _Distance]


def check_contents(contents: type[BaseModel], found: Any) -> Any:
    """Give plain values that hold what they must.

    Raises:
        ValueError: one does not; the message, one line, says which.
    """
    try:
        contents.model_validate(found)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        said = {"missing": "it is missing", "model_type": "it must hold keys with values"}.get(fault["type"])
        said = said or f"{fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(reason(ValueError(f"{place}: {said}" if place else said))) from None
    return found
