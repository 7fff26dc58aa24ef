"""Two processes over gloo train a tiny ViT and a tiny ConvNeXt, in parts of a batch, as one does at once."""

from __future__ import annotations

from pathlib import Path

import torch
from families_worker import NAMES, main
from forked import run_ranks


def test_two_ranks_in_parts_train_as_one(tmp_path: Path) -> None:
    """Uneven shares in two parts each, blocks computed again; one process takes the whole batch."""
    main(tmp_path, 1)
    run_ranks(2, tmp_path / "ranks", main, tmp_path, 2)
    whole = torch.load(tmp_path / "0-of-1.pt")
    first, second = (torch.load(tmp_path / f"{rank}-of-2.pt") for rank in range(2))
    for name in NAMES:
        for key, value in whole[name].items():
            found, length = first[name][key].double(), float(value.double().norm())
            # Softmax takes the bias of the keys off again: what moves there is the rounding of a float32.
            assert float((found - value).norm()) <= max(1e-4 * length, 1e-9), (name, key)
            assert torch.equal(first[name][key], second[name][key]), (name, key)
        assert float(whole[name]["base.norm.weight" if "vit" in name else "base.head.norm.weight"].norm()) > 0
