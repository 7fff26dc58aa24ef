import errno
import os
import pickle
import shutil
import urllib.error
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from icsr_cli.errors import ModelError
from icsr_cli.files import checksum
from icsr_cli.models import (
    ModelSpec,
    Network,
    build,
    detect,
    load_into,
    load_weights,
    open_model,
    read_metadata,
    save_weights,
)
from icsr_cli.models.backbones import Architecture
from icsr_cli.models.catalogue import _families
from icsr_cli.models.sources import Source
from icsr_cli.models.weights import way_out

SMALL: dict[str, Any] = {"num_features": 8, "stripes": 2}


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def published(model: nn.Module) -> dict[str, Any]:
    state = OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items())
    return {"state_dict": state, "epoch": 49, "best_mAP": np.float64(0.83)}


def torchvision_names(model: Network) -> dict[str, torch.Tensor]:
    """The model's backbone as torchvision would save it, with a classifier."""
    places = ["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"]
    state = {}
    for name, value in model.base.state_dict().items():
        number, _, tail = name.partition(".")
        state[f"{places[int(number)]}.{tail}"] = value
    return state | {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


@pytest.mark.parametrize("legacy", [False, True])
def test_published_checkpoint(tmp_path: Path, legacy: bool) -> None:
    model = build("resnet_small", **SMALL, seed=1)
    path = tmp_path / "model_best.pth.tar"
    torch.save(published(model), path, _use_new_zipfile_serialization=not legacy)
    state = load_weights(path)
    assert list(state) == list(model.state_dict())
    assert detect(state) == model.spec
    opened = open_model(path)
    assert same(opened, model)
    assert opened.spec == ModelSpec("resnet_small", 8, "gem", 2)
    assert same(build("resnet_small", **SMALL, weights=str(path)), model)


def test_number_of_an_older_numpy(tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    torch.save(published(build("resnet_small")), path, _use_new_zipfile_serialization=False)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    content = path.read_bytes()
    if new in content:
        content = content.replace(new, old)
    assert old in content
    path.write_bytes(content)
    assert "base.0.weight" in load_weights(path)


@pytest.mark.parametrize("pooling", ["gem", "avg", "max"])
def test_save_and_open(tmp_path: Path, pooling: str) -> None:
    model = build("resnet_small", num_features=8, stripes=4, pooling=pooling, seed=2)
    model = model.to(memory_format=torch.channels_last)
    path = tmp_path / "model.safetensors"
    save_weights(model, path, {"height": "64", "width": "32"})
    metadata = read_metadata(path)
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {
        "arch": "resnet_small",
        "num_features": "8",
        "pooling": pooling,
        "stripes": "4",
        "height": "64",
        "width": "32",
    }
    opened = open_model(path)
    assert opened.spec == model.spec
    assert same(opened, model)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def served_at(file: Path) -> Architecture:
    return replace(_families()["resnet_small"], source=Source(file.as_uri(), "ours"))


class Compiled(nn.Module):
    """Keeps the model under the name that torch.compile gives it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def __len__(self) -> int:
        raise TypeError


def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    model = build("resnet_small", seed=0)
    torch.save(nn.DataParallel(Compiled(model)).state_dict(), tmp_path / "m.pth")
    fresh = build("resnet_small", seed=0)  # the other may be on a GPU now
    assert same(open_model(tmp_path / "m.pth"), fresh)


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    first = build("resnet_small", seed=1)
    save_weights(first, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match="No space left on device"):
        save_weights(build("resnet_small", seed=2), path)
    assert same(open_model(path), first)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ModelError, match="cannot be written"):
        save_weights(first, tmp_path / "nowhere" / "m.safetensors")


def test_detect_pooling_embedding_and_stripes() -> None:
    with torch.device("meta"):
        for spec in (
            ModelSpec("resnet18"),
            ModelSpec("resnet34", 16, "avg", 1),
            ModelSpec("resnet50", 0, "gem", 6),
            ModelSpec("resnet_ibn101a", 256, "gem", 2),
            ModelSpec("resnet152", 0, "avg", 3),
        ):
            model = build(
                spec.arch, num_features=spec.num_features, pooling=spec.pooling, stripes=spec.stripes
            )
            assert detect({**model.state_dict(), "classifier.weight": torch.empty(7, 9)}) == spec


def test_detect_refuses_what_fits_nothing() -> None:
    state = build("resnet_small").state_dict()
    with pytest.raises(ModelError, match="fit none of"):
        detect({name: value for name, value in state.items() if "base.5" not in name})
    with pytest.raises(ModelError, match="fit none of"):
        detect({"weight": torch.zeros(3)})
    with pytest.raises(ModelError, match="pooled width 100 is no multiple"):
        detect({**state, "feat_bn.weight": torch.zeros(100)})


def test_backbone_alone_leaves_the_head_as_it_is() -> None:
    source, model = build("resnet18", seed=1), build("resnet18", num_features=4, seed=2)
    head = {name: value.clone() for name, value in model.state_dict().items() if name[:4] != "base"}
    state = torchvision_names(source)
    load_into(model, {n: v for n, v in state.items() if "num_batches" not in n}, "imagenet")
    assert same(model.base, source.base)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in head.items())
    assert detect(state) == ModelSpec("resnet18")
    of_torchreid = {name.replace("fc.", "classifier."): value for name, value in state.items()}
    assert detect(of_torchreid) == ModelSpec("resnet18", pooling="avg")


def test_other_architecture_is_refused_and_changes_nothing() -> None:
    model, other = build("resnet_small", seed=1), build("resnet18")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"x\.pth: these weights do not fit resnet_small \(") as hit:
        load_into(model, other.state_dict(), "x.pth")
    message = str(hit.value)
    assert "missing" not in message  # every name of the small network is in the large one as well
    assert "48 unexpected: base.4.1.conv1.weight" in message
    assert "base.0.weight (64, 3, 7, 7) instead of (32, 3, 5, 5)" in message
    with pytest.raises(ModelError, match=r"\d+ missing: base\.4\.1\.conv1\.weight"):
        load_into(other, before, "w.pth")
    with pytest.raises(ModelError, match=r"1 missing: feat_bn\.weight\."):
        load_into(model, {n: v for n, v in before.items() if n != "feat_bn.weight"}, "y.pth")
    with pytest.raises(ModelError, match=r"unexpected: feat\.weight, feat\.bias"):
        load_into(model, build("resnet_small", num_features=512).state_dict(), "z.pth")
    with pytest.raises(ModelError, match="missing"):
        load_into(model, {}, "empty")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_what_the_header_says_is_what_to_ask_for(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(build("resnet_small", stripes=2, seed=1), path, {"height": "64", "width": "32"})
    with pytest.raises(ModelError) as hit:
        build("resnet18", weights=path)
    said = str(hit.value)
    assert "The file holds resnet_small (num_features 0, gem, stripes 2, 64 x 32)" in said
    assert "-a resnet_small --set STAGE.model.stripes=2 --height 64 --width 32; or" in said
    build("resnet_small", stripes=2, weights=path)
    cut = {name: value for name, value in load_weights(path).items() if name != "feat_bn.weight"}
    save_file(cut, path, {name: text for name, text in read_metadata(path).items() if name != "sha256"})
    with pytest.raises(ModelError, match="what its own header says"):
        open_model(path)


def test_of_a_network_whose_shapes_depend_on_the_size_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    small, large = (
        ModelSpec("timm:mixer_s32_224", pooling="avg", size=size) for size in ((256, 128), (224, 224))
    )
    save_file({"x": torch.zeros(1)}, path, large.metadata())
    assert "stripes 1, 224 x 224). Ask for that: --height 224 --width 224; or" in way_out(small, str(path))
    assert "what its own header says" in way_out(large, str(path))


def test_weights_of_another_pooling_are_refused_where_the_names_would_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(build("resnet_small", pooling="avg", seed=1), path)
    with pytest.raises(ModelError, match=r"pooling avg, and max is asked for.*STAGE\.model\.pooling=avg"):
        build("resnet_small", pooling="max", weights=path)
    build("resnet_small", pooling="avg", weights=path)


class Plain:
    """A class of its own: opening it would import code."""


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_pickle_that_runs_code(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "bad.pth.tar", tmp_path / "it-ran"
    content = {"state_dict": {"a": torch.zeros(1)}, "x": Payload(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Payload(trace)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ModelError, match=r"bad\.pth\.tar: refused.*mkdir.*run code"):
        load_weights(path)
    assert not trace.exists()


def test_object_of_a_class(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "settings": Plain()}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"refused.*Plain"):
        load_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_file(tmp_path: Path, kind: str) -> None:
    model = build("resnet_small")
    path = tmp_path / ("m.safetensors" if kind == "safetensors" else "m.pth")
    if kind == "safetensors":
        save_weights(model, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for share in (0, 0.001, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelError, match=r"not a whole .* Copy or download it again"):
            load_weights(path)
    path.write_bytes(b"\x89PNG not weights at all" * 100)
    with pytest.raises(ModelError, match="not a whole"):
        open_model(path)
    with pytest.raises(ModelError, match="ONNX is written, for other programs, not read"):
        open_model(path.rename(tmp_path / "m.onnx"))


def test_what_keeps_a_whole_file_from_being_opened_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sp\udce9cial.safetensors"
    save_weights(build("resnet_small", seed=1), path)
    with pytest.raises(ModelError, match="no path that is not UTF-8"):
        read_metadata(path)

    def refuse(opened: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(opened))

    monkeypatch.setattr(Path, "open", refuse)  # root may open whatever there is
    with pytest.raises(PermissionError):
        read_metadata(path)


def test_files_that_are_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content, message in (
        ([torch.zeros(2)], "list"),
        ({}, "no state dict"),
        ({"epoch": 3, "weight": torch.zeros(1)}, "epoch are not tensors"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=message):
            load_weights(path)
    for name in ("missing.pth", "missing.safetensors"):
        with pytest.raises(ModelError, match="no such file"):
            open_model(tmp_path / name)


def test_header_that_says_nonsense(tmp_path: Path) -> None:

    state = build("resnet_small").state_dict()
    path = tmp_path / "m.safetensors"
    for header, message in (
        ({"arch": "resnet_small"}, "header"),
        (
            {"arch": "vgg", "num_features": "0", "pooling": "gem", "stripes": "1"},
            "m.safetensors: arch: 'vgg'",
        ),
        ({"arch": "resnet_small", "num_features": "x", "pooling": "gem", "stripes": "1"}, "header"),
    ):
        save_file(state, path, metadata=header)
        with pytest.raises(ModelError, match=message):
            open_model(path)
    save_file(state, path)
    assert open_model(path).spec == ModelSpec("resnet_small")


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": "0"},
        {"height": "-5"},
        {"height": "1000000"},
        {"width": "99999999999999"},
        {"num_features": "100000000000"},
        {"num_features": "-1"},
        {"stripes": "1000000000"},
        {"stripes": "0"},
        {"mean": "[" * 100_000, "std": "[1, 1, 1]"},
        {"mean": f"[1{'0' * 400}, 1, 1]", "std": "[1, 1, 1]"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_numbers_of_a_header_that_no_network_has(tmp_path: Path, wrong: dict[str, str]) -> None:
    path = tmp_path / "m.safetensors"
    header = build("resnet_small").spec.metadata() | {"height": "64", "width": "32"} | wrong
    save_file(build("resnet_small").state_dict(), path, metadata=header)
    with pytest.raises(ModelError, match=r"m\.safetensors: the header does not say"):
        open_model(path)
    if "num_features" not in wrong and "stripes" not in wrong:  # which the caller says there
        with pytest.raises(ModelError, match=r"m\.safetensors: the header does not say"):
            build("resnet_small", weights=path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.fill_(torch.nan), "holds NaN or infinite numbers"),
        (lambda value: value.fill_(-torch.inf), "holds NaN or infinite numbers"),
        (torch.zeros_like, "is all zero"),
        (lambda value: value.to(torch.complex64), "is of type torch.complex64"),
        (lambda value: value > 0, "is of type torch.bool"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_no_training_leaves(tmp_path: Path, change: Any, words: str, suffix: str) -> None:
    state = build("resnet_small").state_dict()
    state["base.0.weight"] = change(state["base.0.weight"])
    path = tmp_path / f"model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    with pytest.raises(ModelError, match=rf"tensor base\.0\.weight {words}"):
        open_model(path)


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    header = {"width": "8", "height": "16", "b": "2", "a": "1", "name": "käse"}
    for name, given in (("one", header), ("other", dict(reversed(header.items())))):
        save_weights(build("resnet_small", seed=3), tmp_path / f"{name}.safetensors", given)
    one, other = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "other"))
    assert one == other
    assert read_metadata(tmp_path / "one.safetensors").items() >= header.items()
    assert same(open_model(tmp_path / "one.safetensors"), build("resnet_small", seed=3))


class TestImageNet:
    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(torch.hub, "_hub_dir", None)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("ICSR_DOWNLOAD", "1")
        return tmp_path / "hub" / "checkpoints"

    def test_file_in_torch_hubs_folder(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(*_: Any, **__: Any) -> None:
            raise AssertionError("it is there already")

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        hub.mkdir(parents=True)
        source = build("resnet18", seed=4)
        torch.save(torchvision_names(source), hub / "new.pth")
        for arch in ("resnet18", "resnet_ibn50a"):
            name = f"{arch}-{checksum(hub / 'new.pth')[:8]}.pth"
            shutil.copy(hub / "new.pth", hub / name)
            known = replace(_families()[arch], source=Source(f"https://nowhere/{name}", "ours"))
            monkeypatch.setitem(_families(), arch, known)
        model = build("resnet18", pooling="avg", weights="imagenet", seed=5)
        assert same(model.base, source.base)
        with pytest.raises(ModelError, match=r"resnet_ibn50a-[0-9a-f]{8}\.pth: these weights do not fit"):
            build("resnet_ibn50a", weights="imagenet")
        shutil.copy(hub / "new.pth", hub / "resnet34-b627a593.pth")
        with pytest.raises(
            ModelError, match=r"resnet34-b627a593\.pth: damaged, or another .* Remove it and add --download"
        ):
            build("resnet34", weights="imagenet")

    @pytest.mark.parametrize(
        ("arch", "name", "address"),
        [
            ("resnet50", "resnet50-0676ba61.pth", "https://download.pytorch.org/models/"),
            (
                "resnet_ibn50a",
                "resnet50_ibn_a-d9d0bb7b.pth",
                "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/",
            ),
        ],
    )
    def test_offline(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch, arch: str, name: str, address: str
    ) -> None:
        asked = []

        def download(url: str, file: str, hash_prefix: str, progress: bool) -> None:
            asked.append((url, file, hash_prefix))
            raise urllib.error.URLError("no network")

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        with pytest.raises(ModelError) as hit:
            build(arch, weights="imagenet")
        message = str(hit.value)
        for part in (name, address + name, str(hub), "no network", "--init none"):
            assert part in message
        assert asked == [(address + name, str(hub / name), name[-12:-4])]

    def test_wrong_hash(self, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        served = tmp_path / "resnet_small-0123abcd.pth"
        torch.save(build("resnet_small").state_dict(), served)
        monkeypatch.setitem(_families(), "resnet_small", served_at(served))
        with pytest.raises(ModelError, match="invalid hash value"):
            build("resnet_small", weights="imagenet")
        assert not list(hub.iterdir())

    def test_download_with_the_right_hash(
        self, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import hashlib

        source = build("resnet_small", seed=1)
        served = tmp_path / "served.pth"
        torch.save(source.state_dict(), served)
        digest = hashlib.sha256(served.read_bytes()).hexdigest()[:8]
        served = served.rename(tmp_path / f"resnet_small-{digest}.pth")
        monkeypatch.setitem(_families(), "resnet_small", served_at(served))
        assert same(build("resnet_small", weights="imagenet"), source)
        assert (hub / served.name).exists()

    def test_nothing_is_downloaded_without_being_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(*_: Any, **__: Any) -> None:
            raise AssertionError("nobody asked")

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        monkeypatch.delenv("ICSR_DOWNLOAD")
        with pytest.raises(ModelError, match="Add --download, once"):
            build("resnet50", weights="imagenet")

    def test_no_such_weights(self) -> None:
        with pytest.raises(ModelError, match="no ImageNet weights of resnet_small, only of resnet101"):
            build("resnet_small", weights="imagenet")
