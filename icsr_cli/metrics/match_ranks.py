"""Where the right answers stand in a ranking, counted rather than sorted."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from icsr_cli.compilation import compiled
from icsr_cli.threads import blocks, in_threads, row_ranges
from icsr_cli.types import IntArray

# Comparisons that a GPU makes at a time.
_CHUNK_NUMBERS: Final = 1 << 26


def match_ranks(distances: torch.Tensor, rows: IntArray, columns: IntArray) -> IntArray:
    """Give the rank of column ``columns[i]`` in row ``rows[i]``: int64, from 1, ties by column.

    ``distances`` (b, g) float, on any device; infinity is behind everything.
    """
    if distances.device.type == "cpu":
        ranks = np.empty(len(rows), dtype=np.int64)
        table = distances.numpy()
        in_threads(
            lambda low, high: _match_ranks_cpu(table, rows, columns, ranks, low, high), row_ranges(len(rows))
        )
        return ranks
    return _match_ranks_torch(distances, rows, columns)


@compiled()
def _match_ranks_cpu(
    distances: npt.NDArray[Any], rows: IntArray, columns: IntArray, ranks: IntArray, low: int, high: int
) -> None:  # pragma: no cover - compiled
    for i in range(low, high):
        row, column = distances[rows[i]], columns[i]
        own = row[column]
        ranks[i] = 1 + _count_until(row[:column], own) + _count_before(row[column + 1 :], own)


# A loop over a whole part, without a branch and with a small counter, is compiled to vector instructions.
@compiled()
def _count_until(part: npt.NDArray[Any], own: Any) -> Any:  # pragma: no cover - compiled
    count = np.int32(0)
    for other in range(len(part)):
        count += np.int32(part[other] <= own)
    return count


@compiled()
def _count_before(part: npt.NDArray[Any], own: Any) -> Any:  # pragma: no cover - compiled
    count = np.int32(0)
    for other in range(len(part)):
        count += np.int32(part[other] < own)
    return count


def _match_ranks_torch(distances: torch.Tensor, rows: IntArray, columns: IntArray) -> IntArray:
    """Do the same on a GPU: matches in chunks, each against its whole row."""
    position = torch.arange(distances.shape[1], device=distances.device)
    parts = [torch.empty(0, dtype=torch.int64, device=distances.device)]
    for chunk in blocks(len(rows), distances.shape[1], _CHUNK_NUMBERS):
        row, column = (torch.as_tensor(index[chunk], device=distances.device) for index in (rows, columns))
        own = distances[row, column].unsqueeze(1)
        others = distances[row]
        before = (others < own) | ((others == own) & (position < column.unsqueeze(1)))
        parts.append(before.sum(1) + 1)
    return torch.cat(parts).cpu().numpy()
