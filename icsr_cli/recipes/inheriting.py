"""The network of another run, which a run begins from: what of the settings follows from it."""

from pathlib import Path

from icsr_cli import config
from icsr_cli.config.schema import ImageSettings, ModelSettings, Settings
from icsr_cli.errors import UsageError
from icsr_cli.recipes.wish import Resolved
from icsr_cli.runs import open_run

#: What of a network and its images the weights of another can only fit where it is the same.
_OF_THE_NETWORK = ("arch", "num_features", "pooling", "stripes")


def start_from_run(weights: Path, stage: str, settings: Settings, resolved: Resolved) -> Settings:
    """Give ``settings`` with a stage that begins from ``weights``, a file of a run.

    The network and the size of its images are the run's.
    Raises UsageError where the user's settings contradict the run.
    """
    run = open_run(weights.parent)
    began = config.load_run(run.path / "settings.yaml", sections=(f"{run.stage}.model", "image"))
    whose = f"{run.stage} run {run.path}"
    model = began.of(run.stage).model.model_copy(update={"weights": str(weights)})
    return like_another(settings, stage, model, began.image, resolved, whose)


def like_another(
    settings: Settings,
    stage: str,
    model: ModelSettings,
    image: ImageSettings,
    resolved: Resolved,
    whose: str,
) -> Settings:
    """Do as ``with_network``, and begin from the weights of ``model``.

    Raises UsageError where the user's settings contradict the other's.
    """
    settings = with_network(settings, stage, model, image, resolved)
    own = settings.of(stage).model
    asked = {f"{stage}.model.{key}": (getattr(own, key), getattr(model, key)) for key in _OF_THE_NETWORK}
    for key in ("height", "width"):
        asked[f"image.{key}"] = getattr(settings.image, key), getattr(image, key)
    against = [
        f"  - {key}: {now!r} asked for, {then!r} there" for key, (now, then) in asked.items() if now != then
    ]
    if against:
        raise UsageError(
            f"The network of the {whose} is another than is asked for:\n"
            + "\n".join(against)
            + "\nLeave these settings out, or take other weights (--init imagenet, none or a file)."
        )
    return with_model(settings, stage, own.model_copy(update={"weights": model.weights}))


def with_network(
    settings: Settings, stage: str, model: ModelSettings, image: ImageSettings, resolved: Resolved
) -> Settings:
    """Give ``settings`` with a stage's network and images as another run has them, beneath the user's own."""
    own = {key: getattr(model, key) for key in _OF_THE_NETWORK}
    found = resolved({"image": image.model_dump(), stage: {"model": own}})
    settings = with_model(settings, stage, found.of(stage).model)
    return settings.model_copy(update={"image": found.image})


def with_model(settings: Settings, stage: str, model: ModelSettings) -> Settings:
    """Give ``settings`` with another network of a stage."""
    name = {"cam": "cam", "global": "global_"}[stage]
    return settings.model_copy(update={name: settings.of(stage).model_copy(update={"model": model})})
