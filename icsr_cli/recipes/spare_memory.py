"""Batches that do not fit into memory: the backbone computes in parts, or forgets what it can compute again.

Both are activation checkpointing (Chen et al., arXiv 1604.06174). Of a block, or of a part of the batch, only
what goes in and what comes out is kept; the way back computes the rest once more. With parts that is the
gradient cache of GradCache (Gao et al., arXiv 2101.06983): features of all parts without what lies between,
the loss of the whole batch and its gradient for them, then part by part forward and backward again. So a
memory is asked once per step, of the whole batch, whatever its loss compares.

Random numbers of a block (stochastic depth) are drawn again as they were. The running statistics of BatchNorm
move once: the second computation moves copies, which are thrown away.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from icsr_cli.config.schema import StageSettings
from icsr_cli.errors import UsageError
from icsr_cli.recipes.blocks import blocks

_BatchNorm = nn.modules.batchnorm._BatchNorm
Buffers = list[dict[str, Tensor | None]]


def check_parts(base: nn.Module, own: StageSettings, *, processes: int = 1, sync_bn: bool = False) -> None:
    """Refuse parts of a batch that would make another training of it, and blocks that are not there.

    Raises UsageError, which names the setting.
    """
    if processes > 1 and sync_bn and 0 < own.bn_group < own.batch_size:
        raise UsageError(
            f"sync_bn: BatchNorm would take the whole batch of {own.batch_size}, and bn_group says groups of "
            f"{own.bn_group}, which processes need not share. Leave --sync-bn out, or set bn_group to 0."
        )
    if own.checkpoint and next(blocks(base), None) is None:
        raise UsageError(f"checkpoint: {own.model.arch} has no blocks to compute again; leave it off.")
    if own.accumulate == 1:
        return
    parts = own.accumulate * processes
    if own.batch_size < parts:
        raise UsageError(
            f"accumulate: a batch of {own.batch_size} has no {parts} parts ({processes} processes with "
            f"{own.accumulate} each); take fewer."
        )
    if not _norms(base):
        return
    if processes > 1 and sync_bn:
        raise UsageError(
            f"accumulate: the BatchNorm of {own.model.arch} sees a part at a time, and sync_bn takes the "
            "whole batch of all processes. Leave one of them out."
        )
    if own.bn_group == 0 or own.batch_size % (parts * own.bn_group):
        raise UsageError(
            f"accumulate: the BatchNorm of {own.model.arch} sees a part at a time, so bn_group must say of "
            f"how many images its statistics are, and divide a part: {own.batch_size} / {parts} images. It "
            f"is {own.bn_group} now; set it, or take a network without BatchNorm."
        )


def spare_memory(base: nn.Module, own: StageSettings) -> None:
    """Let the backbone ``base`` compute as ``accumulate`` and ``checkpoint`` say, in training.

    Its parameters and its names stay, as does what it does in evaluation mode.
    """
    if own.checkpoint:
        for block in blocks(base):
            _recompute(block)
    if own.accumulate > 1:
        _compute_in_parts(base, own.accumulate)


def _recompute(block: nn.Module) -> None:
    """Let a block keep its input and its output alone, in training."""
    forward = block.forward

    def sparing(*given: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*given, **named)
        return _checkpoint(block, forward, *given, **named)

    block.forward = sparing


def _compute_in_parts(base: nn.Module, parts: int) -> None:
    """Let a backbone compute a batch in parts, in training; the running statistics move by their mean."""
    forward = base.forward

    def in_parts(images: Tensor) -> Tensor:
        if not (base.training and torch.is_grad_enabled()):
            return cast("Tensor", forward(images))
        norms, found, moved = _norms(base), [], []
        # A part has an image at least; where there are two ranks, each has as many parts.
        for part in torch.tensor_split(images, min(parts, len(images))):
            with _copied_buffers(norms) as copies:
                found.append(_checkpoint(base, forward, part))
            moved.append(copies)
        _move(norms, moved)
        return torch.cat(found)

    base.forward = in_parts


def _checkpoint(module: nn.Module, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Compute ``forward``, and once more on the way back, where nothing is to be remembered of it."""
    again = False

    def compute(*given: Any, **named: Any) -> Any:
        nonlocal again
        with _copied_buffers(_norms(module)) if again else nullcontext():
            again = True
            return forward(*given, **named)

    return checkpoint(compute, *given, use_reentrant=False, **named)


def _norms(module: nn.Module) -> list[nn.Module]:
    return [each for each in module.modules() if isinstance(each, _BatchNorm)]


@contextmanager
def _copied_buffers(norms: Sequence[nn.Module]) -> Iterator[Buffers]:
    """Let copies stand for the buffers of ``norms``: what moves within is in what is given."""
    kept = [dict(norm._buffers) for norm in norms]
    copies: Buffers = [
        {name: None if value is None else value.clone() for name, value in own.items()} for own in kept
    ]
    _put(norms, copies)
    try:
        yield copies
    finally:
        _put(norms, kept)


def _put(norms: Sequence[nn.Module], buffers: Buffers) -> None:
    for norm, own in zip(norms, buffers, strict=True):
        norm._buffers.update(own)


@torch.no_grad()
def _move(norms: Sequence[nn.Module], moved: Sequence[Buffers]) -> None:
    """Move each buffer to the mean of what the parts moved it to; counters have moved by one in each."""
    for norm, *ways in zip(norms, *moved, strict=True):
        for name, buffer in norm._buffers.items():
            ends = [way[name] for way in ways]
            if buffer is not None:
                stacked = torch.stack([end for end in ends if end is not None])
                buffer.copy_(stacked.mean(dim=0) if buffer.is_floating_point() else stacked[0])
