import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from icsr_cli.errors import InputError
from icsr_cli.images.augment import Augmentation, normalise

FILL = torch.tensor([0.485, 0.456, 0.406])


def pixels(b: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (b, h, w, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmented(augmentation: Augmentation, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return augmentation.apply(batch, augmentation.draw(len(batch), generator))


def slow_normalise(image: Image.Image) -> torch.Tensor:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return vision.normalize(vision.to_tensor(image), mean, std)


def test_normalise_against_torchvision() -> None:
    batch = pixels(3, 7, 5)
    found = normalise(batch)
    expected = torch.stack([slow_normalise(Image.fromarray(image.numpy())) for image in batch])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert found.shape == (3, 3, 7, 5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("border", "mode"), [("black", "constant"), ("edge", "edge")])
def test_flip_pad_and_crop_against_every_possible_result(border: str, mode: str) -> None:
    h, w, pad = 6, 4, 2
    image = Image.fromarray(pixels(1, h, w, seed=1)[0].numpy())
    possible = [
        slow_normalise(vision.crop(vision.pad(turned, pad, padding_mode=mode), top, left, h, w))
        for turned in (image, vision.hflip(image))
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    ]
    batch = torch.from_numpy(np.asarray(image).copy()).expand(4000, h, w, 3)
    found = augmented(Augmentation(h, w, pad=pad, border=border, erase=0), batch, dice())
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(found.flatten(1), torch.stack(possible).flatten(1), compute_mode=exact)
    nearest, which = distance.min(dim=1)
    assert nearest.max() < 1e-4
    counts = which.bincount(minlength=50)
    assert counts.min() > 45  # 80 each on average, standard deviation 9
    assert counts.max() < 120


def test_each_image_keeps_its_place_in_the_batch() -> None:
    batch = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 8, 8, 3)
    found = augmented(Augmentation(8, 8, pad=3, erase=0), batch, dice())
    torch.testing.assert_close(found[:, :, 4, 4], normalise(batch)[:, :, 4, 4])


def test_a_part_of_a_batch_is_augmented_as_in_the_whole() -> None:
    batch, augmentation = pixels(9, 16, 8), Augmentation(16, 8, pad=3, erase=0.8)
    whole = augmented(augmentation, batch, dice())
    drawn = augmentation.draw(9, dice())
    torch.testing.assert_close(augmentation.apply(batch[4:7], drawn[4:7]), whole[4:7], atol=0, rtol=0)


def slow_hole(h: int, w: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of what random erasing takes, as usually written."""
    for _ in range(100):
        area = rng.uniform(0.02, 0.4) * h * w
        aspect = rng.uniform(0.3, 1 / 0.3)
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if tall < h and wide < w:
            return rng.randint(0, h - tall), rng.randint(0, w - wide), tall, wide
    raise AssertionError("cannot happen with these sizes")


@pytest.mark.parametrize(("h", "w"), [(16, 8), (64, 32)])
def test_erasing_is_a_rectangle_with_the_usual_distribution(h: int, w: int) -> None:
    count = 3000
    batch = pixels(1, h, w, seed=2).expand(count, h, w, 3)
    plain = normalise(batch)
    found = augmented(Augmentation(h, w, flip=0, pad=0, erase=1), batch, dice(3))
    hole = (found == FILL[:, None, None]).all(dim=1)
    assert torch.equal(torch.where(hole[:, None], plain, found), plain)
    rows, columns = hole.any(dim=2), hole.any(dim=1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])
    boxes = []
    for line in (rows, columns):
        first, length = line.int().argmax(dim=1), line.sum(dim=1)
        last = h if line is rows else w
        assert (line.flip(1).int().argmax(dim=1) + length + first == last).all()  # one stretch, no gap
        boxes += [first, length]
    top, tall, left, wide = (part.double() for part in boxes)
    rng = random.Random(4)
    slow = torch.tensor([slow_hole(h, w, rng) for _ in range(count)], dtype=torch.float64)
    for ours, theirs in zip(
        (top, left, tall, wide, tall * wide), (*slow.T, slow[:, 2] * slow[:, 3]), strict=True
    ):
        error = 4.5 * theirs.std() * (2 / count) ** 0.5
        assert abs(ours.mean() - theirs.mean()) < error
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
    assert ((top + tall) == h).any()
    assert ((left + wide) == w).any()


def test_erase_probability() -> None:
    batch = pixels(1, 16, 8).expand(2000, 16, 8, 3)
    found = augmented(Augmentation(16, 8, flip=0, pad=0, erase=0.3), batch, dice())
    share = (found != normalise(batch)).flatten(1).any(dim=1).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.045)


def test_no_rectangle_fits() -> None:
    batch = pixels(50, 1, 1)
    found = augmented(Augmentation(1, 1, flip=0, pad=0, erase=1, erase_area=(1.0, 1.0)), batch, dice())
    assert torch.equal(found, normalise(batch))


def test_erasing_comes_after_the_crop() -> None:
    batch = torch.full((500, 16, 8, 3), 255, dtype=torch.uint8)
    found = augmented(Augmentation(16, 8, pad=4, erase=1), batch, dice())
    values = found.permute(0, 2, 3, 1).reshape(-1, 3)
    black, white = normalise(
        torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 1, 3)
    )
    known = torch.stack((black.flatten(), white.flatten(), FILL))
    assert (torch.cdist(values, known).min(dim=1).values < 1e-5).all()
    assert all((torch.cdist(values, row[None]) < 1e-5).any() for row in known)


def test_generator_decides_and_goes_on() -> None:
    batch, augment = pixels(8, 16, 8), Augmentation(16, 8)
    generator = dice(5)
    state = generator.get_state()
    first, second = augmented(augment, batch, generator), augmented(augment, batch, generator)
    generator.set_state(state)
    assert torch.equal(augmented(augment, batch, generator), first)
    assert not torch.equal(first, second)


def test_nothing_to_do() -> None:
    batch = pixels(4, 6, 5)
    assert torch.equal(augmented(Augmentation(6, 5, flip=0, pad=0, erase=0), batch, dice()), normalise(batch))
    flipped = augmented(Augmentation(6, 5, flip=1, pad=0, erase=0), batch, dice())
    assert torch.equal(flipped, normalise(batch.flip(2)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 16, 8, 3), "pixels: expected uint8"),
        (torch.zeros(2, 3, 16, 8, dtype=torch.uint8), r"\(2, 3, 16, 8\)"),
        (torch.zeros(16, 8, 3, dtype=torch.uint8), r"\(16, 8, 3\)"),
        (torch.zeros(0, 16, 8, 3, dtype=torch.uint8), r"b >= 1, got torch.uint8 \(0, 16, 8, 3\)"),
    ],
)
def test_wrong_pixels(bad: torch.Tensor, message: str) -> None:
    for call in (normalise, lambda batch: augmented(Augmentation(16, 8), batch, dice())):
        with pytest.raises(InputError, match=message):
            call(bad)


def test_wrong_size_of_image() -> None:
    with pytest.raises(InputError, match=r"16 x 8 \(height x width\), got 8 x 16"):
        augmented(Augmentation(16, 8), pixels(1, 8, 16), dice())
