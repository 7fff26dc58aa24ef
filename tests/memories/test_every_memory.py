"""What every memory of the room must hold; a new one is tested by being there."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from icsr_cli import choices
from icsr_cli.types import Epoch, Labels

IMAGES = torch.tensor([0, 1, 2, 7, 8, 13, 14, 21])


def memory_of(name: str, device: str = "cpu") -> Any:
    """Eight clusters of five images under three cameras, every loss that is off by default switched on."""
    room = choices.find("memories", name)
    given = {"association": 1.0} if "association" in room.Options.model_fields else {}
    features = normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), dim=1).to(device)
    labels = Labels.of(np.arange(40) % 8)
    return room.Memory(Epoch(1, features, np.arange(40) % 3, labels), room.Options(**given))


def batch(device: str = "cpu") -> Tensor:
    return torch.randn(len(IMAGES), 6, generator=torch.Generator().manual_seed(1)).to(device)


def rows_of(memory: Any) -> list[Tensor]:
    """Every tensor that a memory holds, those of what it holds included."""
    found = []
    for value in vars(memory).values():
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value).__module__.startswith("icsr_cli.memories") and not isinstance(
            value, choices.Options
        ):
            found += rows_of(value)
    return found


@pytest.mark.parametrize("name", choices.available("memories"))
def test_no_gradient_goes_through_what_is_remembered(name: str) -> None:
    memory, features = memory_of(name), batch().requires_grad_()
    before = [row.clone() for row in rows_of(memory)]
    loss = memory.loss(features, IMAGES)
    loss.backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert all(torch.equal(row, old) for row, old in zip(rows_of(memory), before, strict=True))
    memory.update(features, IMAGES)
    rows = rows_of(memory)
    assert any(not torch.equal(row, old) for row, old in zip(rows, before, strict=True))
    assert not any(row.requires_grad for row in rows)


@pytest.mark.parametrize("name", choices.available("memories"))
def test_nothing_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device without numbers: whoever asks for one, or for a size that hangs on them, fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    memory, features = memory_of(name, "meta"), batch("meta").requires_grad_()
    loss = memory.loss(features, IMAGES)
    memory.update(features.detach(), IMAGES)
    assert loss.shape == ()
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


@pytest.mark.parametrize("name", choices.available("memories"))
def test_built_again_it_learns_the_same_to_the_bit(name: str) -> None:
    """A resumed run and every rank build it anew from the same epoch, and give it the whole batch."""
    one, other = memory_of(name), memory_of(name)
    for _ in range(3):
        losses = [memory.loss(batch(), IMAGES) for memory in (one, other)]
        assert torch.equal(*losses)
        for memory in (one, other):
            memory.update(batch(), IMAGES)
    assert all(torch.equal(a, b) for a, b in zip(rows_of(one), rows_of(other), strict=True))


@pytest.mark.parametrize("name", choices.available("memories"))
def test_an_image_in_no_cluster_may_be_one_of_its_own(name: str) -> None:
    """As if the labels had named each of them; without, they change nothing."""
    room = choices.find("memories", name)
    features = normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = np.arange(40) % 8
    labels[labels == 7] = -1
    named = np.where(labels < 0, 7 + np.cumsum(labels < 0) - 1, labels)
    images = torch.tensor([0, 1, 2, 8, 13, 21])
    losses = []
    for own, singles in ((labels, True), (named, False), (labels, False)):
        epoch = Epoch(1, features, np.arange(40) % 3, Labels.of(own))
        losses.append(room.Memory(epoch, room.Options(singles=singles)).loss(batch()[:6], images))
    assert torch.equal(losses[0], losses[1])
    assert losses[0] > losses[2]
    assert labels.min() == -1, "the labels stay as they are"
