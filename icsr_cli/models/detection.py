"""Which network a file of weights belongs to."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from torch import Tensor

from icsr_cli.errors import InputError, ModelError
from icsr_cli.models.catalogue import architecture, available, build
from icsr_cli.models.network import ModelSpec, Network
from icsr_cli.models.unfilled import unfilled
from icsr_cli.models.weights import is_backbone, load_into, load_weights, read_metadata, size_of, spec_of


@cache
def _shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an architecture's backbone."""
    with unfilled():
        return _backbone_shapes(build(arch).state_dict())


def _backbone_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a backbone that do not depend on the size of images, by our names."""
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if name.startswith(("base.", "neck.")) and not name.endswith(("num_batches_tracked", "pos_embed"))
    }


def _recognise(state: Mapping[str, Tensor]) -> tuple[str | None, dict[str, Tensor]]:
    """Give the architecture whose backbone it is, if there is one, and the state by our names."""
    renamed = dict(state)
    # Those that timm builds come last: to load it takes seconds.
    for arch in sorted(available(), key=lambda arch: architecture(arch).has_drop_path):
        layout = architecture(arch).layout_of(state)
        if layout is not None:
            renamed = layout.rename(state)
            if _shapes(arch) == _backbone_shapes(renamed):
                return arch, renamed
    return None, renamed


def detect(state: Mapping[str, Tensor]) -> ModelSpec:
    """Tell from names and shapes which network a state dict belongs to.

    GeM has its ``gap.p``; average and maximum pooling leave no trace and are taken for average. A plain
    backbone (ImageNet weights) is given its family's pooling and no embedding, the published choice; a ResNet
    with a ``classifier``, as torchreid saves it, the average that its classifier stood on.
    Raises ModelError where it fits no architecture, or the widths of its parts do not go together.
    """
    of_torchreid = "classifier.weight" in state
    arch, state = _recognise(state)
    if arch is None:
        raise ModelError(
            f"the weights ({len(state)} tensors, {len(_backbone_shapes(state))} of a backbone) fit none of "
            f"{', '.join(available())}. Give a file of one of these; of another network (timm:NAME) say "
            "which it is, with -a."
        )
    chosen = architecture(arch)
    if is_backbone(state):
        pooling = "avg" if of_torchreid and chosen.pooling == "gem" else chosen.pooling
        return ModelSpec(arch, pooling=pooling, norm=chosen.norm)
    with unfilled():
        channels = build(arch).dim
    num_features, pooled = 0, 0
    if "feat.weight" in state and state["feat.weight"].dim() == 2:
        num_features, pooled = state["feat.weight"].shape
    elif "feat_bn.weight" in state:
        pooled = state["feat_bn.weight"].numel()
    if pooled == 0 or pooled % channels:
        raise ModelError(
            f"the weights are of {arch} with {channels} channels, but the pooled width {pooled} is no "
            "multiple of that. Give a whole file of weights."
        )
    pooling = "gem" if "gap.p" in state else "cls" if chosen.pooling == "cls" else "avg"
    return ModelSpec(arch, num_features, pooling, pooled // channels, chosen.norm)


def open_model(path: str | Path) -> Network:
    """Build the network that a file of weights belongs to, and load them.

    The header of our own files says what it is; for others names and shapes do. ``resized`` makes it
    one for images of another size. Raises ModelError as
    ``load_weights``, ``detect`` and ``load_into`` do.
    """
    state = load_weights(path)
    header = read_metadata(path)
    try:
        own = "arch" in header
        spec = spec_of(header) if own else detect(state)
        network = build(**spec.options, size=spec.size)
        trained = size_of(header)
    except (InputError, ModelError) as error:
        raise ModelError(f"{path}: {error}") from error
    said = load_into(network, state, str(path), trained)
    network.norm = spec.norm if own else said or spec.norm
    return network
