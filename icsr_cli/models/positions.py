"""Tables of positions: resized from the patches they were trained on to those of a network."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from icsr_cli.errors import ModelError
from icsr_cli.models.network import Network
from icsr_cli.types import Size

_POSITIONS = "base.pos_embed"


def fit_positions(
    model: Network, own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, size: Size | None
) -> dict[str, Tensor]:
    """Give ``state`` with its table of positions, (1, tokens, d), of the patches of ``model``.

    ``own`` is the state of ``model``. ``size``: (height, width) of the images that the table is of; without
    it the table is of one of the grids that the architecture declares, or square, or of the network's own.
    Raises ModelError where the table's grid is not known.
    """
    table, wanted = state.get(_POSITIONS), own.get(_POSITIONS)
    if table is None or wanted is None or model.grid is None or model.size is None:
        return dict(state)
    if table.dim() != 3 or table.shape[2] != wanted.shape[2]:
        return dict(state)  # of another shape: the reader says so
    before = wanted.shape[1] - math.prod(model.grid)  # tokens with positions of their own
    if before < 0:
        return dict(state)
    count = table.shape[1] - before
    if size is not None:
        patch = model.size[0] // model.grid[0]
        grid: Size | None = (size[0] // patch, size[1] // patch)
    else:
        grid = _grid(count, model.architecture.grids, model.grid)
    if grid is None or math.prod(grid) != count:
        known = ", ".join(f"{rows} x {columns}" for rows, columns in model.architecture.grids)
        raise ModelError(
            f"{source}: the table of positions {_POSITIONS} is of {count} patches: not {known}, no square."
        )
    if grid != model.grid:
        from timm.layers.pos_embed import resample_abs_pos_embed

        table = resample_abs_pos_embed(table, [*model.grid], [*grid], before)
    return {**state, _POSITIONS: table}


def _grid(count: int, known: Sequence[Size], own: Size) -> Size | None:
    """Give rows and columns of so many patches: those of a known grid, else a square, else the network's."""
    edge = math.isqrt(max(count, 0))
    return next((grid for grid in (*known, (edge, edge), own) if math.prod(grid) == count), None)
