import numpy as np
import pytest
import torch

from icsr_cli.choices import Options
from icsr_cli.config.schema import GlobalSettings
from icsr_cli.distances import normalise_cameras
from icsr_cli.distances.camera_effect import CameraEffect, camera_effect
from icsr_cli.errors import InputError
from icsr_cli.labelling import KnownEvidence, evidence_of, label


def crowd(seed, *, shift=0.0, looks=0.0, people=120, cameras=4, d=64, images=4):
    """People who live at one camera and walk by a second one: float32 (n, d), cameras (n,).

    ``shift``: how far the cameras move every image; ``looks``: how far they differ in the people of theirs.
    """
    rng = np.random.default_rng(seed)
    home = rng.integers(0, cameras, people)
    also = (home + rng.integers(1, cameras, people)) % cameras
    person = rng.standard_normal((people, d)) + looks * rng.standard_normal((cameras, d))[home]
    of_person = np.repeat(np.arange(people), 2 * images)
    of_camera = np.stack([home, also], axis=1).repeat(images, axis=1).ravel()
    noise = 0.3 * rng.standard_normal((len(of_person), d))
    moved = shift * rng.standard_normal((cameras, d))[of_camera]
    return (person[of_person] + noise + moved).astype(np.float32), of_camera


@pytest.mark.parametrize("seed", range(4))
def test_cameras_that_move_every_image_are_told_from_people_who_differ(seed):
    cameras, people = camera_effect(*crowd(seed, shift=0.8)), camera_effect(*crowd(seed, looks=0.8))
    assert cameras.share == pytest.approx(1, abs=0.2)
    assert people.share == pytest.approx(0, abs=0.25)
    assert (cameras.mode, people.mode) == ("full", "none")
    assert min(cameras.pairs, people.pairs) > 20


def test_two_cameras_are_enough():
    found = camera_effect(*crowd(1, shift=0.8, cameras=2))
    assert found.pairs > 20
    assert found.share != 1  # which is said where nothing was found
    assert found.share == pytest.approx(1, abs=0.1)


def test_few_pairs_conclude_nothing_nor_do_means_that_differ_by_chance():
    few = camera_effect(*crowd(1, people=5, shift=3))
    assert few == CameraEffect(1.0, few.pairs)
    assert 0 < few.pairs < 10
    people = crowd(1)[0]
    again = people + 0.3 * np.random.default_rng(0).standard_normal(people.shape)
    same = camera_effect(np.concatenate([people, again]), np.repeat([0, 1], len(people)))
    assert same == CameraEffect(1.0, same.pairs)
    assert same.pairs > 20


def test_both_are_weighed():
    found = [camera_effect(*crowd(1, shift=shift, looks=0.8)).share for shift in (0, 0.4, 0.8, 1.6)]
    assert found == sorted(found)
    assert found[0] < 0.3 < 0.7 < found[-1]


def test_the_same_step_by_step():
    """Person by person, in loops and float64."""
    features, cameras = crowd(2, shift=0.5, looks=0.5, people=40, d=24)
    x = features.astype(np.float64) / np.linalg.norm(features, axis=1, keepdims=True)
    means = {c: x[cameras == c].mean(axis=0) for c in range(4)}
    basis = []
    for c in range(1, 4):  # Gram and Schmidt over the differences of the means
        v = means[c] - means[0]
        for b in basis:
            v = v - (v @ b) * b
        basis.append(v / np.linalg.norm(v))
    rest = [x[i] - means[cameras[i]] for i in range(len(x))]
    rest = [r - sum((r @ b) * b for b in basis) for r in rest]
    rest = [r / np.linalg.norm(r) for r in rest]
    best = [
        max((j for j in range(len(x)) if cameras[j] != cameras[i]), key=lambda j: rest[i] @ rest[j])
        for i in range(len(x))
    ]
    pairs = sorted(
        ((i, best[i]) for i in range(len(x)) if best[best[i]] == i and i < best[i]),
        key=lambda pair: -(rest[pair[0]] @ rest[pair[1]]),
    )
    pairs = pairs[: (len(pairs) + 1) // 2]
    chance = {
        c: np.mean([(x[i] - means[c]) @ (x[i] - means[c]) for i in np.flatnonzero(cameras == c)])
        / ((cameras == c).sum() / 5)
        for c in range(4)
    }
    seen = real = 0.0
    for i, j in pairs:
        apart = means[cameras[j]] - means[cameras[i]]
        seen += (x[j] - x[i]) @ apart
        real += apart @ apart - chance[cameras[i]] - chance[cameras[j]]
    found = camera_effect(features, cameras)
    assert found.pairs == len(pairs)
    assert found.share == pytest.approx(seen / real, rel=1e-3)


def test_scale_and_numbers_of_cameras_do_not_matter():
    features, cameras = crowd(3, shift=0.5, looks=0.3)
    expected = camera_effect(features, cameras)
    for changed in (
        camera_effect(7 * features, cameras),
        camera_effect(features, 3 * cameras + 1),
        camera_effect(torch.from_numpy(features), torch.from_numpy(cameras)),
    ):
        assert changed.pairs == expected.pairs
        assert changed.share == pytest.approx(expected.share, rel=1e-4)


@pytest.mark.parametrize(
    ("features", "cameras"),
    [
        (crowd(1)[0], np.zeros(960, int)),  # one camera
        (crowd(1, people=3)[0], crowd(1, people=3)[1]),  # too few pairs
        (crowd(1, d=2)[0], crowd(1, d=2)[1]),  # nothing beside the means
        (np.ones((8, 4), np.float32), np.arange(8) % 2),  # nothing at all
        (crowd(1)[0][:1], np.zeros(1, int)),
    ],
)
def test_without_evidence_cameras_are_made_equal(features, cameras):
    found = camera_effect(features, cameras)
    assert (found.share, found.mode) == (1, "full")


def test_the_edge():
    assert CameraEffect(0.49, 30).mode == "none"
    assert CameraEffect(0.5, 30).mode == CameraEffect(0.51, 30).mode == "full"


def test_bad_input():
    with pytest.raises(InputError, match="cameras"):
        camera_effect(np.ones((3, 2), np.float32), [0, 1])


@pytest.mark.parametrize("world", [{"shift": 0.8}, {"looks": 0.8}])
def test_evidence_takes_what_was_chosen(world):
    features, cameras = crowd(1, **world)
    found = KnownEvidence(features, Options(), normalise="auto", cameras=cameras)
    assert found.effect == camera_effect(features, cameras)
    expected = features if "looks" in world else normalise_cameras(features, cameras, "full")
    np.testing.assert_array_equal(found.features, expected)
    with pytest.raises(InputError, match="normalise = auto needs the camera"):
        _ = KnownEvidence(features, Options(), normalise="auto").features


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("mode", ["centre", "full"])
def test_nothing_is_left_of_one_image_or_of_copies(count, mode):
    alike = np.full((count, 4), 0.5, np.float32)
    evidence = KnownEvidence(alike, Options(), normalise=mode, cameras=np.zeros(count, int))
    with pytest.raises(InputError, match=f"normalise = {mode} leaves nothing of {count} of {count} images"):
        _ = evidence.features


def test_the_choice_is_a_figure_of_the_labels():
    found = {}
    for name in ("auto", "full"):
        chain = GlobalSettings(normalise=name, clusterer={"method": "dbscan", "min_samples": 2})
        features, cameras = crowd(1, looks=0.8)
        found[name] = label(evidence_of(features, chain, cameras=cameras), chain).figures
    assert found["auto"]["normalised"] == 0
    assert found["auto"]["camera_effect"] < 0.5
    assert not {"normalised", "camera_effect"} & found["full"].keys()
