"""The commands of README and docs, typed as they stand, in order, on small data."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from icsr_cli.cli.main import app
from icsr_cli.runs import read_labels

ROOT = Path(__file__).parents[2]
_STAGE = {
    "model": {"arch": "resnet_small", "stripes": 1, "weights": "none"},
    "epochs": 1,
    "iters": 2,
    "batch_size": 16,
    "bn_group": 0,
}
#: What makes a run small, as a settings file beside the commands, which stay as they are.
SMALL: dict[str, Any] = {
    "image": {"height": 32, "width": 16},
    "cam": _STAGE,
    "global": {**_STAGE, "clusterer": {"method": "dbscan", "eps": 0.7, "min_samples": 2}},
}


def section(page: str, title: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"{page} has no section {title!r}"
    return found[1]


def commands(text: str) -> list[str]:
    """The lines of the blocks without a language, comments taken off."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    lines = [
        line.split("  #")[0].strip() for kind, block in blocks if not kind for line in block.splitlines()
    ]
    assert lines
    return lines


def type_in(lines: list[str]) -> list[str]:
    """Type commands one after the other; gives what each printed."""
    printed = []
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "icsr", line
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        printed.append(result.stdout)
    return printed


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    monkeypatch.setenv("ICSR_CONFIG", str(tmp_path / "small.yaml"))
    return tmp_path


@pytest.fixture
def rendered(tiny_root: Path) -> Path:
    return next((tiny_root / "tiny").glob("rendered-*"))


def test_your_own_crops(home: Path, rendered: Path) -> None:
    """Crops by camera, without identities."""
    for number, file in enumerate(sorted((rendered / "bounding_box_train").iterdir())):
        camera = home / "crops" / re.search(r"_(c\d+)s", file.name)[1]  # type: ignore[index]
        camera.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, camera / f"{number:03}.jpg")
    shutil.copy(next(camera.iterdir()), home / "query.jpg")
    type_in(commands(section("README.md", "Your own crops")))
    blind = CliRunner().invoke(app, ["train", "global", "-d", "shop", "--eval-every", "1", "--name", "blind"])
    assert blind.exit_code == 2
    assert "no query and no gallery images" in blind.stderr
    assert not (home / "runs" / "shop" / "global" / "blind").exists()
    assert (home / "labels.html").is_file()
    assert (home / "shop.onnx").is_file()
    assert (home / "ranking.png").is_file()


def test_market_1501(home: Path, rendered: Path) -> None:
    """Three words are smaller than on the page: the network, and the steps of each epoch."""
    shutil.make_archive("Market-1501-v15.09.15", "zip", rendered)
    lines = commands(section("README.md", "Market-1501"))
    for given, less in (("--iters 100", "--iters 1"), ("--iters 200", "--iters 1"), ("-b 64", "-b 8")):
        lines = [line.replace(given, less) for line in lines]
    type_in([re.sub(r"-a \S+", "-a resnet_small", line) for line in lines])


def test_camera_aware(home: Path, tiny_root: Path) -> None:
    """Each part, switched on alone as the page says."""
    shutil.copytree(tiny_root, home / "data")
    type_in(commands((ROOT / "docs" / "camera_aware.md").read_text(encoding="utf-8")))


def test_write_your_own(home: Path, tiny_root: Path) -> None:
    """Each method of the page, as it stands there."""
    shutil.copytree(tiny_root, home / "data")
    page = (ROOT / "docs" / "write_your_own.md").read_text(encoding="utf-8")
    files = re.findall(r"^`(\w+\.py)`:.*?^```python\n(.*?)^```", page, re.M | re.S)
    assert len(files) == 3
    for name, content in files:
        (home / name).write_text(content, encoding="utf-8")
    type_in(commands(page))
    [labels] = sorted(home.glob("runs/tiny/global/*/labels/epoch_001.csv"))[:1]
    assert labels.read_text().splitlines()[0].endswith("cohesion,cluster_size")
    features = np.random.default_rng(0).normal(size=(200, 4))
    np.savez("features.npz", features=features, cameras=np.arange(200) % 3)
    own = ["--plugin", "components.py", "--clusterer", "components", "--set", "link=0.7"]
    places = ["labels", "generate", "features.npz", *own, "--out"]
    type_in([shlex.join(["icsr", *places, *words]) for words in (["all.npz"], ["lean.npz", "--lean"])])
    both = [read_labels(home / name).labels for name in ("all.npz", "lean.npz")]
    np.testing.assert_array_equal(*both)
    assert 50 < both[0].max() < 100


#: Fewer people than on the page, smaller networks and batches: the commands stay as they are otherwise.
LESS = (
    (r"^(icsr prepare synthetic.*)$", r"\1 --identities 4 --images 2 --size 32x16"),
    (r" -a resnet\w+", " -a resnet_small"),
    (r" --iters \d+", " --iters 1"),
)


@pytest.mark.parametrize("page", ["data", "clusterers", "labels", "settings", "runs", "search", "export"])
def test_every_other_page(page: str, home: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command in a block of the page, in order; what the page takes for given is there."""
    _make_what_is_taken_for_given(home, rendered, page)
    monkeypatch.delenv("COLUMNS", raising=False)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    # What needs a run and crops of its own: test_typed_export.py types it.
    text = text.partition("## Statistics of cameras")[0]
    lines = [line for line in commands(text) if line.startswith("icsr ")]
    for pattern, less in LESS:
        lines = [re.sub(pattern, less, line) for line in lines]
    for line in lines:
        line, _, out = line.partition(" > ")
        words = [
            word
            for given in shlex.split(line)
            for word in (
                sorted(str(path) for path in Path().glob(given))
                if "*" in given[1:] and "{" not in given
                else [given]
            )
        ]
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if out:
            Path(out).write_text(result.stdout)


def _make_what_is_taken_for_given(home: Path, rendered: Path, page: str) -> None:
    import torch

    from icsr_cli.models import build

    shutil.make_archive("Market-1501-v15.09.15", "zip", rendered)
    images = sorted((rendered / "bounding_box_train").iterdir())
    layouts = {"search": ["c{c}_{n}.jpg"], "data": ["{c}/{n}.jpg", "{i}_c{c}_{n}.jpg"]}
    listed = ["path,camera"]
    for number, file in enumerate(images):
        found = re.match(r"(\d+)_c(\d+)", file.name)
        assert found
        for layout in layouts.get(page, []):
            name = layout.format(c=found[2], i=found[1], n=number)
            for place in ("crops", "query") if page == "search" and number < 3 else ("crops",):
                (home / place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, home / place / name)
            listed.append(f"crops/{name},{found[2]}")
    (home / "images.csv").write_text("\n".join(listed))
    rng = np.random.default_rng(0)
    features, cameras = rng.normal(size=(60, 8)), np.arange(60) % 3
    np.savez(home / "features.npz", features=features, cameras=cameras)
    np.save(home / "features.npy", features)
    np.save(home / "cameras.npy", cameras)
    shutil.copytree(ROOT / "tests" / "golden", home / "tests" / "golden")
    shutil.copy(images[0], home / "person.jpg")
    torch.save(
        {"state_dict": build("resnet50", seed=1).state_dict()}, home / "model_best.pth.tar"
    ) if page == "export" else None
    if page in ("runs", "export", "settings", "search"):
        type_in(
            [
                "icsr prepare market1501 --source Market-1501-v15.09.15.zip",
                "icsr train cam -d market1501 --network shared",
            ]
        )
    if page in ("export", "search"):
        type_in(["icsr train global -d market1501 --name RUN"])
