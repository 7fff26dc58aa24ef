"""What runs on a GPU, on one of paper (``paper_gpu.py``): no mixed devices, no hidden waits, same numbers."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from paper_gpu import GPU, PaperGenerator, PaperGpu, Wait, host, patch_torch

from icsr_cli import choices
from icsr_cli.config.schema import GlobalSettings, ModelSettings
from icsr_cli.distances import camera_jaccard_similarity, jaccard_similarity, knn, normalise_cameras
from icsr_cli.errors import UsageError
from icsr_cli.features import extract
from icsr_cli.images import augment
from icsr_cli.images.augment import Augmentation
from icsr_cli.labelling import evidence_of, label
from icsr_cli.metrics import rank, rank_by_camera, rank_distances, rerank
from icsr_cli.models import backbones, build
from icsr_cli.models.batch_norm import group_batch_norm
from icsr_cli.progress import Task
from icsr_cli.recipes import steps
from icsr_cli.recipes.camera_features import extract_by_camera
from icsr_cli.types import Epoch, Labels

CPU = torch.device("cpu")
HEIGHT, WIDTH, N, CLUSTERS, CAMERAS = 64, 32, 24, 3, 2
#: What waits within a step, and why it may.
IN_A_STEP = {("images/augment.py", "_tiled"): "constants of the normalisation: made once, and kept"}
#: What else waits in an epoch of training.
IN_AN_EPOCH = {
    ("recipes/steps.py", "train_epoch"): "the mean loss, after the last step",
    ("recipes/steps.py", "_require_finite"): "whether it is finite, after the last step",
    ("features.py", "_constants"): "constants of the normalisation, once in an extraction",
}
IN_AN_EXTRACTION = {("features.py", "_constants"): "constants of the normalisation, once in an extraction"}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PaperGpu]:
    """A paper GPU, to be entered; a real one would change what is tested."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    augment._tiled.cache_clear()
    patch_torch(monkeypatch)
    yield PaperGpu()
    augment._tiled.cache_clear()


def places(waits: list[Wait]) -> set[tuple[str, str]]:
    return {(wait.file, wait.function) for wait in waits}


def an_epoch(features: Any) -> Epoch:
    labels = np.arange(N) % CLUSTERS
    labels[-2:] = -1
    return Epoch(1, features, np.arange(N) // CLUSTERS % CAMERAS, Labels.of(labels))


def a_map_of(pixels: Any) -> Any:
    """The same in a file, which a thread fetches ahead of the step."""
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, np.uint8, "w+", shape=pixels.shape)
    mapped[:] = pixels
    return mapped


def train(
    device: torch.device, how: dict[str, Any], mode: Any, module: ModuleType = steps
) -> tuple[float, dict[str, Any], list[Wait], list[Wait]]:
    """Two steps on ``device``: the loss, the weights, what waited in the steps, and in the epoch."""
    drawn = np.random.default_rng(5)
    pixels = torch.from_numpy(drawn.integers(0, 256, (N, HEIGHT, WIDTH, 3), dtype=np.uint8))
    here = isinstance(mode, PaperGpu)
    with mode:
        engine = module.choose_engine(device.type, how.get("precision", "fp32"))
        model = ModelSettings(arch=how.get("arch", "resnet_small"), weights="none", **how.get("model", {}))
        network = module.build_network(model, 7, engine)
        if "bn_group" in how:
            group_batch_norm(network, how["bn_group"])
        features = torch.nn.functional.normalize(
            torch.from_numpy(drawn.standard_normal((N, network.dim), dtype=np.float32)), dim=1
        )
        if here:
            features = mode.upload(features)
            pixels = mode.upload(pixels) if how.get("pixels_there", True) else a_map_of(pixels.numpy())
        memory = module.build_memory(an_epoch(features), [choices.find("memories", how["memory"]).Options()])
        chosen = choices.find("optimizers", how.get("optimizer", "adam"))
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer, _ = chosen.build(trained, chosen.Options())
        rows = np.arange(2 * CLUSTERS)
        waits: list[Wait] = []
        if here:
            mode.waits.clear()
        loss = module.train_epoch(
            network,
            optimizer,
            pixels,
            [[module.Part(0, rows, rows)], [module.Part(0, rows + 6, rows + 6)]],
            [memory],
            Augmentation(HEIGHT, WIDTH, border="edge"),
            (PaperGenerator() if here else torch.Generator()).manual_seed(1),
            engine=engine,
            task=Task(),
            check=lambda: waits.__setitem__(slice(None), mode.waits) if here else None,
        )
        return loss, host(dict(network.state_dict())), waits, (mode.waits if here else [])


MEMORIES = [{"memory": name} for name in choices.available("memories")]
OPTIMIZERS = [{"memory": "clusters", "optimizer": name} for name in choices.available("optimizers")]


def families() -> list[str]:
    """The first architecture of each family."""
    names = [module.name for module in pkgutil.iter_modules(backbones.__path__)]
    modules = [importlib.import_module(f"{backbones.__name__}.{name}") for name in names]
    return [next(iter(module.ARCHITECTURES)) for module in modules if hasattr(module, "ARCHITECTURES")]


WAYS = [
    *MEMORIES,
    *OPTIMIZERS,
    {"memory": "clusters", "precision": "bf16"},
    {"memory": "clusters", "pixels_there": False},
    {"memory": "clusters", "bn_group": 3},
    {"memory": "clusters", "model": {"num_features": 16, "stripes": 2, "pooling": "max"}},
]


@pytest.mark.parametrize("how", WAYS, ids=lambda how: " ".join(map(str, how.values())))
def test_training_on_a_gpu(how: dict[str, Any], gpu: PaperGpu) -> None:
    """Each memory, each optimiser, either precision, pixels here or there: as on the CPU, without a wait."""
    loss, weights, in_steps, in_all = train(GPU, how, gpu)
    assert places(in_steps) <= IN_A_STEP.keys(), in_steps
    assert places(in_all) <= IN_A_STEP.keys() | IN_AN_EPOCH.keys(), in_all
    if how.get("precision") == "bf16":
        assert np.isfinite(loss)  # the CPU computes in fp32 where it is not told otherwise
        return
    expected, same, *_ = train(CPU, how, nullcontext())
    assert loss == expected
    assert all(torch.equal(weights[name], value) for name, value in same.items())


@pytest.mark.parametrize("arch", families())
def test_each_family_of_backbones(arch: str, gpu: PaperGpu) -> None:
    """Forward, backward and extraction."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 64, 32, 3), dtype=np.uint8))
    network = build(arch, seed=1, size=(64, 32))
    expected = extract(network, images, batch_size=2)
    with gpu:
        network = network.to(GPU)
        pixels = gpu.upload(images)
        gpu.waits.clear()
        found = extract(network, pixels, batch_size=2, device=GPU)
        assert places(gpu.waits) <= IN_AN_EXTRACTION.keys(), gpu.waits
        assert found.device == GPU
        assert torch.equal(host(found), expected)
        gpu.waits.clear()
        network(augment.normalise(pixels)).square().mean(dim=0)[0].backward()
        assert places(gpu.waits) <= IN_A_STEP.keys(), gpu.waits
        assert all(
            parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad
        )


def test_features_by_camera(gpu: PaperGpu) -> None:
    """The statistics of a camera are computed where its images are; the order of the draw is uploaded."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (N, 64, 32, 3), dtype=np.uint8))
    network, cameras = build("resnet_small", seed=1), np.arange(N) % CAMERAS
    expected = extract_by_camera(network, cameras, 3, lambda rows, size: extract(network, images, rows))
    with gpu:
        network = network.to(GPU)
        pixels = gpu.upload(images)
        gpu.waits.clear()
        found = extract_by_camera(
            network, cameras, 3, lambda rows, size: extract(network, pixels, rows, device=GPU)
        )
        assert places(gpu.waits) <= IN_AN_EXTRACTION.keys(), gpu.waits
        assert torch.equal(host(found), expected)


def a_copy_of_the_steps(change: Callable[[str], str]) -> ModuleType:
    source = inspect.getsource(steps)
    changed = change(source)
    assert changed != source, "the step has been rewritten: so must be this test"
    module = ModuleType("icsr_cli.recipes.steps_copy")
    sys.modules[module.__name__] = module
    exec(compile(changed, steps.__file__, "exec"), module.__dict__)
    return module


def test_a_hidden_wait_is_found(gpu: PaperGpu) -> None:
    """The tests above can fail: an ``.item()`` in a copy of the step."""
    module = a_copy_of_the_steps(
        lambda source: source.replace("return loss.detach()", "loss.item(); return loss.detach()")
    )
    _, _, in_steps, _ = train(GPU, {"memory": "clusters"}, gpu, module)
    found = [wait for wait in in_steps if (wait.file, wait.function) not in IN_A_STEP]
    assert {(wait.file, wait.function) for wait in found} == {("recipes/steps.py", "step")}
    assert {wait.operation for wait in found} == {"aten._local_scalar_dense.default"}


def test_a_misplaced_tensor_is_found(gpu: PaperGpu) -> None:
    """The tests above can fail: a tensor of the host in a copy of the step."""
    module = a_copy_of_the_steps(
        lambda source: source.replace("return loss.detach()", "return loss.detach() + torch.zeros(1)")
    )
    with pytest.raises(RuntimeError, match=r"two (different )?devices,? cuda:0(,| and) cpu"):
        train(GPU, {"memory": "clusters"}, gpu, module)


def test_what_the_paper_gpu_knows_of_waits(gpu: PaperGpu) -> None:
    here = torch.arange(6)
    with gpu:
        there = gpu.upload(here)
        mask = there > 2
        for waits in (
            lambda: here.to(GPU),
            lambda: there.cpu(),
            lambda: bool(mask.any()),
            lambda: there[mask],
            lambda: there.nonzero(),
            lambda: there.unique(),
            lambda: there[here],
            lambda: there.tolist(),
            lambda: torch.tensor([1, 2], device="cuda"),
            lambda: torch.repeat_interleave(there, there),
        ):
            gpu.waits.clear()
            waits()
            assert gpu.waits, inspect.getsource(waits)
        gpu.waits.clear()
        here.pin_memory().to(GPU, non_blocking=True)
        there[there.clone()] = there.masked_fill(mask, 0) + 1
        there[mask] = 0
        torch.arange(3, device=GPU).add_(1).flip(0).sort()
        assert gpu.waits == []
        with pytest.raises(RuntimeError, match=r"two (different )?devices"):
            there + here
        with pytest.raises(RuntimeError, match="pin"):
            there.pin_memory()
        with pytest.raises(TypeError):
            np.asarray(there)
        with pytest.raises(TypeError):
            there.numpy()


def test_augmentation(gpu: PaperGpu) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8))
    changed = Augmentation(8, 6, pad=2)
    expected = changed.apply(pixels, changed.draw(5, torch.Generator().manual_seed(3)))
    with gpu:
        there = gpu.upload(pixels)
        for generator in (PaperGenerator(), torch.Generator()):
            gpu.waits.clear()
            found = changed.apply(there, changed.draw(5, generator.manual_seed(3)))
            assert torch.equal(host(found), expected)
            assert places(gpu.waits) <= IN_A_STEP.keys()


@pytest.fixture
def features() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(2)
    ids, cameras = np.arange(60) % 10, np.arange(60) // 10 % 3
    latent = drawn.standard_normal((10, 16))[ids] + 0.3 * drawn.standard_normal((60, 16))
    rows = torch.from_numpy(latent.astype(np.float32))
    return torch.nn.functional.normalize(rows, dim=1), ids, cameras


def test_neighbours_and_similarities(features: Any, gpu: PaperGpu) -> None:
    x, _, cameras = features
    near, alike = knn(x, 8, metric="cosine"), jaccard_similarity(x, 8, 3, backend="torch")
    aware, centred = camera_jaccard_similarity(x, cameras), normalise_cameras(x, cameras, "full")
    with gpu:
        there = gpu.upload(x)
        found = knn(there, 8, metric="cosine")
        assert torch.equal(host(found.indices), near.indices)
        assert torch.allclose(host(found.distances), near.distances, atol=1e-6)
        for way in ({}, {"neighbours": found}, {"approximate": "ivf"}):
            got = jaccard_similarity(there, 8, 3, **way)
            assert abs(got - alike).max() < 1e-6
        assert abs(camera_jaccard_similarity(there, cameras) - aware).max() < 1e-6
        assert torch.allclose(host(normalise_cameras(there, cameras, "full")), centred, atol=1e-6)


#: Options that have no default.
NEEDED: dict[str, Any] = {"average-linkage": {"images_per_cluster": 5}}


@pytest.mark.parametrize("room", ["distances", "clusterers", "refiners"])
def test_labels_from_features_on_a_gpu(room: str, features: Any, gpu: PaperGpu) -> None:
    """Each method of each room."""
    x, ids, cameras = features
    facts = {"cameras": cameras, "local": ids, "previous": ids, "tracks": ids}
    for name in choices.available(room):
        one = {"distances": "distance", "clusterers": "clusterer"}.get(room)
        chosen = {one: {"method": name, **NEEDED.get(name, {})}} if one else {"refiners": [name]}
        own = GlobalSettings.model_validate({"distance": {"method": "jaccard", "k1": 8, "k2": 3}, **chosen})
        expected = label(evidence_of(x, own, **facts), own)
        with gpu:
            found = label(evidence_of(gpu.upload(x), own, **facts), own)
        assert np.array_equal(found.labels, expected.labels), name


def test_ranking(features: Any, gpu: PaperGpu) -> None:
    x, ids, cameras = features
    names = (ids[:20], ids[20:], cameras[:20], cameras[20:])
    expected, by_camera = rank(x[:20], x[20:], *names), rank_by_camera(x[:20], x[20:], *names)
    again = rerank(x[:20], x[20:], 6, 3)
    with gpu:
        query, gallery = gpu.upload(x[:20]), gpu.upload(x[20:])
        assert rank(query, gallery, *names).as_dict() == pytest.approx(expected.as_dict())
        found = rank_by_camera(query, gallery, *names)
        assert {pair: one.mAP for pair, one in found.items()} == pytest.approx(
            {pair: one.mAP for pair, one in by_camera.items()}
        )
        distances = rerank(query, gallery, 6, 3)
        assert torch.allclose(host(distances), again, atol=1e-5)
        assert rank_distances(distances, *names).mAP == pytest.approx(rank_distances(again, *names).mAP)


def test_the_engine_names_its_gpu(gpu: PaperGpu) -> None:
    """``cuda`` is not ``cuda:0``, and pixels that are there already are not brought there again."""
    with gpu:
        for name in ("cuda", "cuda:0"):
            assert steps.choose_engine(name, "fp32").device == GPU
    with pytest.raises(UsageError, match="cannot be used"):
        steps.choose_engine("meta", "fp32")
    with pytest.raises(UsageError, match=r"it takes cpu, cuda, or cuda:1 .* There are "):
        steps.choose_engine("tpu", "fp32")
