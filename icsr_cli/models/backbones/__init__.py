"""One file per family of backbones, found by its name.

A family file holds ``ARCHITECTURES``, a dict from an architecture's name to its ``Architecture``. A family
whose names are a library's holds ``architecture(name)`` instead; its networks are called ``FILE:NAME``
(``timm:vit_small_patch16_224``). All that a family's weights are known by is in its file: where they are to
be had, by which names, their pixels' mean and standard deviation.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from torch import Tensor, nn

from icsr_cli.models.sources import Source
from icsr_cli.types import IMAGENET, PixelNorm, Size

State = dict[str, Tensor]


class Backbone(NamedTuple):
    """Layers from float (b, 3, h, w) to features of ``channels``.

    ``form`` is that of their output: ``map`` (b, channels, h', w'), ``last`` (b, h', w', channels), or
    ``tokens`` (b, prefix + h' w', channels), of which ``prefix`` stand before those of the patches, the class
    token first, where there is one (``class_token``). ``patch``: height of a patch in pixels. ``neck``:
    layers after the pooling, which make ``channels`` of those of the map. ``parts``: tokens of parts of the
    body after the class token; their mean stands beside it. ``sized``: takes images of the size it was made
    for, no other.

    ResNets have the published order of eight children: convolution, normalisation, ReLU, pooling, and the
    four stages.
    """

    layers: nn.Module
    channels: int
    form: Literal["map", "last", "tokens"] = "map"
    prefix: int = 0
    patch: int = 1
    neck: nn.Module | None = None
    parts: int = 0
    sized: bool = False
    class_token: bool = False


@dataclass(frozen=True)
class Layout:
    """One way in which a family's weights are written.

    ``mark``: a pattern that a name in such a file begins with, and in no other layout of the family.
    ``names``: (pattern, replacement), the first that a name begins with counts; None: the tensor is left out.
    ``change``: what renaming cannot do, after it. ``norm``: gives what the weights' pixels are normalised
    by, where the layout tells, from the state as it was in the file. ``fault``: says why a backbone cannot be
    the weights' though names and shapes fit. ``spare``: a pattern of our names that are left out where the
    network has none of that name.
    """

    title: str
    mark: str
    names: Sequence[tuple[str, str | None]] = ()
    change: Callable[[State], State] = lambda state: state
    norm: Callable[[Mapping[str, Tensor]], PixelNorm | None] = lambda state: None
    fault: Callable[[nn.Module], str | None] = lambda backbone: None
    spare: str = "(?!)"

    def rename(self, state: Mapping[str, Tensor]) -> State:
        """Give the tensors the names of our networks, without those that are left out.

        Names that no pattern knows stay: a reader lists them as unexpected.
        """
        renamed = {}
        for name, value in state.items():
            rule = next((rule for rule in self.names if re.match(rule[0], name)), None)
            if rule is None:
                renamed[name] = value
            elif rule[1] is not None:
                renamed[re.sub(rule[0], rule[1], name, count=1)] = value
        return self.change(renamed)


#: Of the files that are written here, for the families that have the library's names.
OWN: Final = Layout("of our own", r"base\.")


class Make(NamedTuple):
    """What a backbone is made for: (height, width) of the images, rate of stochastic depth."""

    size: Size = (256, 128)
    drop_path: float = 0.0


@dataclass(frozen=True)
class Architecture:
    """One architecture of a family, and what is known of its weights.

    ``pooling`` and ``norm`` are its defaults. ``source``: its ImageNet weights, where torch hub
    keeps them; ``fetch`` gives them where a library does, of images of ``fetched_size``. ``pages``: where
    other weights are to be had, by what they were trained on. ``has_drop_path``: whether it can have
    stochastic depth. ``grids``: rows and columns of patches that the tables of positions of published weights
    may be of. ``patch``: pixels of a patch's edge; images are whole patches. ``paper``: that describes it.
    """

    make: Callable[[Make], Backbone]
    layouts: Sequence[Layout] = ()
    source: Source | None = None
    fetch: Callable[[], State] | None = None
    fetched_size: Size | None = None
    pages: Mapping[str, Source] = field(default_factory=dict)
    pooling: str = "gem"
    norm: PixelNorm = IMAGENET
    has_drop_path: bool = False
    grids: Sequence[Size] = ()
    patch: int = 1
    paper: str | None = None

    def layout_of(self, state: Mapping[str, Tensor]) -> Layout | None:
        """Give the first layout that a state dict is in."""
        return next((one for one in self.layouts if any(re.match(one.mark, name) for name in state)), None)
