"""The k-reciprocal Jaccard similarity on any torch device, with indices of sparse entries only.

A set of pairs (row, column) is a sorted int64 tensor of keys, row * n + column. Rows are worked on in
blocks, so that what a block needs stays below about 1 GiB. Sums are taken in whole numbers: they do
not depend on the order in which a device adds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from icsr_cli.threads import blocks

#: Entries of the largest tensor of a block.
BLOCK = 2**24
#: Weights as whole numbers; a row's sum of 2**30 fits into int32.
ONE = 2**30


def overlaps_above(
    features: Any,
    neighbours: Any,
    half: int,
    k2: int,
    share: Callable[[int], tuple[int, int]],
    least: float,
) -> Iterator[tuple[int, Any]]:
    """Give, block of rows after block of rows, the similarities above the diagonal, from ``least`` on.

    That is the number of rows, and their (entries per row, columns, values) as numpy arrays. ``features``:
    float32 (n, d) unit vectors; a tensor's device is where it is computed. ``neighbours``: whole numbers
    (n, k1), nearest first. ``half``: columns of the half sets. ``k2``: neighbours whose weights are averaged.
    ``share``: which of so many blocks are wanted, first and end.
    """
    n, x = len(features), torch.as_tensor(features)
    ranks = torch.as_tensor(neighbours, dtype=torch.int64, device=x.device)
    keys = _grown_sets(ranks, half)
    weights = _softmax(x, keys)
    if k2 > 1 and n > 1:
        keys, weights = _averaged(ranks[:, :k2], keys, weights)
    whole = (weights * ONE).round().to(torch.int32)
    rows, columns = keys // n, keys % n
    starts = torch.searchsorted(rows, torch.arange(n + 1, device=x.device))
    order = torch.sort(columns, stable=True).indices
    heads = torch.searchsorted(columns[order], torch.arange(n + 1, device=x.device))
    by_column = (rows[order], whole[order])
    ranges = list(_blocks(rows, columns, heads, n))
    for low, high in ranges[slice(*share(len(ranges)))]:
        yield high - low, _overlap_block(low, high, starts, columns, whole, heads, by_column, least)


def _reciprocal(ranks: torch.Tensor, k: int) -> torch.Tensor:
    """Bool (n, k): whether a row is among the first k neighbours of its c-th neighbour."""
    n = len(ranks)
    marks = torch.empty((n, k), dtype=torch.bool, device=ranks.device)
    rows = torch.arange(n, device=ranks.device)
    for block in blocks(n, k * k, BLOCK):
        marks[block] = (ranks[ranks[block, :k], :k] == rows[block, None, None]).any(dim=2)
    return marks


def _contains(keys: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    places = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.eq(keys[places], wanted)


def _grown_sets(ranks: torch.Tensor, half: int) -> torch.Tensor:
    """Sorted keys of the reciprocal sets, grown by the half sets that lie in them by over 2/3."""
    n, k1 = ranks.shape
    device = ranks.device
    full_sets, half_sets = _reciprocal(ranks, k1), _reciprocal(ranks, half)
    rows = torch.arange(n, device=device)[:, None].expand(n, k1)
    first = torch.sort((rows * n + ranks)[full_sets]).values
    parts = []
    for block in blocks(n, k1 * half, BLOCK):
        candidates = ranks[block]
        member = half_sets[candidates] & full_sets[block, :, None]
        keys = rows[block, :, None] * n + ranks[candidates, :half]
        shared = (_contains(first, keys) & member).sum(dim=2)
        joins = 3 * shared > 2 * member.sum(dim=2)
        parts.append(torch.unique(keys[member & joins[:, :, None]]))
    grown: torch.Tensor = torch.unique(torch.cat([first, *parts]))
    return grown


def _softmax(x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Float32 weight per key: exp(-(2 - 2 x·y)) over its sum in the row."""
    n = len(x)
    weights = torch.empty(len(keys), dtype=torch.float64, device=x.device)
    for block in blocks(len(keys), x.shape[1], BLOCK):
        part = keys[block]
        products = (x[part // n] * x[part % n]).sum(dim=1)
        weights[block] = torch.exp(2 * products.double() - 2)
    totals = torch.zeros(n, dtype=torch.float64, device=x.device)
    totals.index_add_(0, keys // n, weights)
    return (weights / totals[keys // n]).float()


def _spread(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For lists of these lengths, one after the other: the list of each entry, and its place there."""
    owners = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    places = torch.arange(len(owners), device=counts.device) - (counts.cumsum(0) - counts)[owners]
    return owners, places


def _averaged(
    ranks: torch.Tensor, keys: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the rows of each row's neighbours, as keys and weights."""
    n, k2 = ranks.shape
    starts = torch.searchsorted(keys, torch.arange(n + 1, device=keys.device) * n)
    lengths = starts.diff()
    whole = (weights * ONE).round().long()
    found_keys, found_weights = [], []
    for block in blocks(n, 4 * k2 * int(lengths.max()), BLOCK):
        sources = ranks[block].flatten()
        owners, places = _spread(lengths[sources])
        entries = starts[sources[owners]] + places
        gathered = (block.start + owners // k2) * n + keys[entries] % n
        unique, inverse = torch.unique(gathered, return_inverse=True)
        sums = torch.zeros(len(unique), dtype=torch.int64, device=keys.device)
        sums.index_add_(0, inverse, whole[entries])
        found_keys.append(unique)
        found_weights.append((sums.double() / (k2 * ONE)).float())
    return torch.cat(found_keys), torch.cat(found_weights)


def _blocks(
    rows: torch.Tensor, columns: torch.Tensor, heads: torch.Tensor, n: int
) -> Iterator[tuple[int, int]]:
    """Cut the rows so that neither a block's sums nor its list of common entries gets too long."""
    work = torch.zeros(n, dtype=torch.int64, device=rows.device)
    work.index_add_(0, rows, heads.diff()[columns])
    ends = np.cumsum(np.maximum(work.cpu().numpy(), n))
    low = 0
    while low < n:
        before = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
        yield low, high
        low = high


def _overlap_block(
    low: int,
    high: int,
    starts: torch.Tensor,
    columns: torch.Tensor,
    whole: torch.Tensor,
    heads: torch.Tensor,
    by_column: tuple[torch.Tensor, torch.Tensor],
    least: float,
) -> tuple[Any, Any, Any]:
    n = len(starts) - 1
    own_rows, places = _spread(starts[low : high + 1].diff())
    entries = starts[low] + torch.arange(len(own_rows), device=starts.device)
    owners, places = _spread(heads.diff()[columns[entries]])
    partners = heads[columns[entries[owners]]] + places
    others = by_column[0][partners]
    row = own_rows[owners]
    later = others > row + low
    shares = torch.minimum(whole[entries[owners]], by_column[1][partners])[later]
    sums = torch.zeros((high - low) * n, dtype=torch.int32, device=starts.device)
    sums.index_add_(0, (row * n + others)[later], shares)
    found = sums.nonzero().flatten()
    share = sums[found].float() / ONE
    values = (share / (2 - share)).clamp(max=1)
    kept = values >= least
    found, values = found[kept], values[kept]
    counts = torch.bincount(found // n, minlength=high - low)
    return counts.cpu().numpy(), (found % n).to(torch.int32).cpu().numpy(), values.cpu().numpy()
