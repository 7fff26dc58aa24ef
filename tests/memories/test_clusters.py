from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from icsr_cli.errors import InputError
from icsr_cli.memory import ClusterMemory, centroids_of

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "labels_and_ranking.npz")


def unit(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(("kind", "momentum"), [("momentum", 0.2), ("hard", 0.1)])
def test_golden_sequence(kind: str, momentum: float) -> None:
    golden = {
        name: torch.from_numpy(GOLDEN[f"memory_{kind}_{name}"])
        for name in ("init", "inputs", "targets", "loss", "grad", "after")
    }
    memory = ClusterMemory(golden["init"], temperature=0.05, momentum=momentum, hard=kind == "hard")
    before = golden["init"].clone()
    for step in range(6):
        features = golden["inputs"][step].clone().requires_grad_()
        loss = memory.loss(features, golden["targets"][step])
        loss.backward()
        assert torch.equal(memory.centroids, golden["after"][step - 1] if step else before)
        memory.update(features, golden["targets"][step])
        assert loss.item() == pytest.approx(golden["loss"][step].item(), abs=1e-6)
        torch.testing.assert_close(features.grad, golden["grad"][step], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(memory.centroids, golden["after"][step], atol=1e-6, rtol=1e-5)
    assert torch.equal(golden["init"], before)


def slow_loss(centroids: np.ndarray, features: np.ndarray, targets: list[int], temperature: float) -> float:
    losses = []
    for feature, target in zip(features, targets, strict=True):
        logits = [float(feature @ c) / np.linalg.norm(feature) / temperature for c in centroids]
        losses.append(np.log(np.sum(np.exp(np.array(logits) - logits[target]))))
    return float(np.mean(losses))


def slow_update(
    centroids: np.ndarray, features: np.ndarray, targets: list[int], momentum: float, hard: bool
) -> np.ndarray:
    centroids = centroids.copy()
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    steps = list(zip(features, targets, strict=True))
    if hard:
        least: dict[int, tuple[float, np.ndarray]] = {}
        for feature, target in steps:
            similarity = float(feature @ centroids[target])
            if target not in least or similarity < least[target][0]:
                least[target] = (similarity, feature)
        steps = [(feature, target) for target, (_, feature) in least.items()]
    for feature, target in steps:
        mixed = momentum * centroids[target] + (1 - momentum) * feature
        centroids[target] = mixed / np.linalg.norm(mixed)
    return centroids


@settings(max_examples=50, deadline=None)
@given(
    targets=st.lists(st.integers(0, 6), min_size=1, max_size=24),
    momentum=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    hard=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_against_one_sample_at_a_time(targets: list[int], momentum: float, hard: bool, seed: int) -> None:
    init, features = unit((7, 5), seed), 3 * unit((len(targets), 5), seed + 1)
    memory = ClusterMemory(init, temperature=0.2, momentum=momentum, hard=hard)
    ids = torch.tensor(targets)
    wide = init.double().numpy(), features.double().numpy()
    assert memory.loss(features, ids).item() == pytest.approx(
        slow_loss(*wide, targets, 0.2), rel=1e-4, abs=1e-5
    )
    memory.update(features, ids.int())
    np.testing.assert_allclose(memory.centroids, slow_update(*wide, targets, momentum, hard), atol=3e-5)


def test_order_within_a_cluster_counts() -> None:
    init, features = unit((2, 4), 0), unit((3, 4), 1)
    results = []
    for order in ([0, 1, 2], [2, 1, 0]):
        memory = ClusterMemory(init, momentum=0.5)
        memory.update(features[order], torch.tensor([1, 1, 1]))
        results.append(memory.centroids)
        assert torch.equal(memory.centroids[0], init[0])
    assert not torch.allclose(*results)


def test_hard_takes_the_first_of_equals() -> None:
    init = torch.tensor([[1.0, 0.0, 0.0]])
    memory = ClusterMemory(init, momentum=0.5, hard=True)
    memory.update(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(memory.centroids, normalize(torch.tensor([[1.0, 1.0, 0.0]]), dim=1))


@pytest.mark.parametrize("hard", [False, True])
def test_nan_reaches_the_centroid_and_not_the_index(hard: bool) -> None:
    memory = ClusterMemory(unit((3, 4), 0), hard=hard)
    memory.update(torch.full((2, 4), torch.nan), torch.tensor([1, 1]))
    assert memory.centroids.isnan().any(dim=1).tolist() == [False, True, False]


def test_autocast_does_not_touch_the_loss() -> None:
    memory, features, targets = ClusterMemory(unit((50, 64), 0)), unit((8, 64), 1), torch.arange(8)
    expected = memory.loss(features, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(memory.loss(features, targets), expected)
    assert memory.loss(features.bfloat16(), targets).dtype == torch.float32


def test_arrays_are_taken_as_tensors_are() -> None:
    features, targets = unit((4, 4), 1), torch.tensor([0, 2, 2, 1])
    one, other = (ClusterMemory(unit((3, 4), 0)) for _ in range(2))
    assert one.loss(features.numpy(), targets.numpy()) == other.loss(features, targets)
    one.update(features.numpy(), targets.numpy())
    other.update(features, targets)
    assert torch.equal(one.centroids, other.centroids)


def test_update_leaves_no_graph() -> None:
    memory, features = ClusterMemory(unit((3, 4), 0)), unit((2, 4), 1).requires_grad_()
    memory.update(features, torch.tensor([0, 2]))
    assert not memory.centroids.requires_grad
    assert len(memory) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"centroids": torch.zeros(3)}, r"centroids: expected float \(m, d\)"),
        ({"centroids": torch.zeros(0, 3)}, r"centroids: .* \(0, 3\)"),
        ({"centroids": torch.zeros(2, 3, dtype=torch.int64)}, "int64"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"momentum": 1.5}, "momentum"),
    ],
)
def test_wrong_settings(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClusterMemory(**{"centroids": unit((2, 3), 0), **arguments})


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (torch.zeros(2, 5), torch.tensor([0, 1]), r"features: expected float \(b, 4\).*\(2, 5\)"),
        (torch.zeros(2, 4).long(), torch.tensor([0, 1]), "features"),
        (torch.zeros(2, 4), torch.tensor([0]), r"targets: expected int \(2,\)"),
        (torch.zeros(2, 4), torch.tensor([0.0, 1.0]), "targets"),
        (torch.zeros(2, 4), torch.tensor([0, 3]), "clusters from 0 to 2, got 0 to 3"),
        (torch.zeros(2, 4), torch.tensor([-1, 0]), "got -1 to 0"),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), "empty"),
    ],
)
def test_wrong_batches(features: torch.Tensor, targets: torch.Tensor, message: str) -> None:
    memory = ClusterMemory(unit((3, 4), 0))
    before = memory.centroids.clone()
    for call in (memory.loss, memory.update):
        with pytest.raises(InputError, match=message):
            call(features, targets)
    assert torch.equal(memory.centroids, before)


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.integers(-1, 5), min_size=1, max_size=40), seed=st.integers(0, 10**6))
def test_centroids_against_a_loop(labels: list[int], seed: int) -> None:
    present = sorted({label for label in labels if label >= 0})
    dense = np.array([present.index(label) if label >= 0 else -1 for label in labels])
    features = unit((len(labels), 6), seed)
    if not present:
        with pytest.raises(InputError, match="no cluster"):
            centroids_of(features, dense)
        return
    expected = np.stack([features.double().numpy()[dense == c].mean(axis=0) for c in range(len(present))])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for given_labels in (dense, torch.from_numpy(dense)):
        np.testing.assert_allclose(centroids_of(features, given_labels), expected, atol=1e-4)


def test_wrong_labels_for_centroids() -> None:
    features = unit((3, 4), 0)
    for labels, message in (
        ([0, 2, -1], r"1 numbers below 3 have no image \(the first is 1\)"),
        ([0, 1], r"\(2,\) for \(3, 4\)"),
        ([0.0, 1.0, 2.0], "expected int"),
    ):
        with pytest.raises(InputError, match=message):
            centroids_of(features, np.array(labels))
