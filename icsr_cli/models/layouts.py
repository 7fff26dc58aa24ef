"""How files of weights name what a backbone is made of: one table of renamings for each layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from icsr_cli.types import PixelNorm

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One way in which a family's weights are written.

    ``mark``: a pattern that a name in such a file begins with, and in no other layout of the family.
    ``names``: (pattern, replacement), the first that a name begins with counts; None: the tensor is left out.
    ``change``: what renaming cannot do, after it. ``norm``: gives what the weights' pixels are normalised
    by, where the layout tells, from the state as it was in the file. ``fault``: says why a backbone cannot be
    the weights' though names and shapes fit.
    """

    title: str
    mark: str
    names: Sequence[tuple[str, str | None]] = ()
    change: Callable[[State], State] = lambda state: state
    norm: Callable[[Mapping[str, Tensor]], PixelNorm | None] = lambda state: None
    fault: Callable[[nn.Module], str | None] = lambda backbone: None

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Tell whether a state dict is in this layout."""
        return any(re.match(self.mark, name) for name in state)

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


def layout_of(layouts: Sequence[Layout], state: Mapping[str, Tensor]) -> Layout | None:
    """Give the first layout that a state dict is in."""
    return next((layout for layout in layouts if layout.fits(state)), None)
