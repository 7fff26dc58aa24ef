"""The pages without a dead link, the script of the Python page, the wheel in an environment of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from forked import Forked, script

import icsr_cli

ROOT = Path(__file__).parents[2]


def run(*words: object, folder: Path) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_pages_make_a_site_without_a_dead_link(tmp_path: Path) -> None:
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path, folder=ROOT)
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_pages_beside(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_python_page_names_what_there_is() -> None:
    import importlib

    rows = re.findall(r"^\| [^|]+ \| (.+) \|$", (ROOT / "docs" / "python.md").read_text(), re.M)
    names = [name for row in rows for name in re.findall(r"`((?:[a-z_]+\.)+[a-z_]+)\(?[^`]*`", row)]
    assert len(names) > 10
    for name in names:
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(f"icsr_cli.{module}"), last), name


def test_the_code_of_the_synthetic_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "synthetic.md").read_text(), re.M | re.S)
    small = "seed=3, train_identities=4, test_identities=3"
    smaller = code.replace("seed=3, test_identities=50", small)
    assert smaller != code
    exec(smaller, found := {})
    assert found["pixels"].shape[0] == len(found["names"])
    assert len(list((tmp_path / "data" / "synthetic").rglob("*.jpg"))) == len(found["names"])


def test_the_torchrun_line_of_the_page_of_several_gpus(tiny_root: Path, tmp_path: Path) -> None:
    """Two processes instead of four, on the CPU, of a smaller data set; smaller by a settings file."""
    page = (ROOT / "docs" / "distributed.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith("torchrun --nproc-per-node 4")]
    stage = "{model: {arch: resnet_small, weights: none}, epochs: 1, iters: 2, batch_size: 16, bn_group: 0}"
    (tmp_path / "small.yaml").write_text(f"image: {{height: 32, width: 16}}\nglobal: {stage}\n")
    words = line.replace("-per-node 4", "-per-node 2").replace("market1501", "tiny").split()
    scripts = Path(sys.executable).parent
    words = [str(scripts / word) if word in ("torchrun", "icsr") else word for word in words]
    environment = {"ICSR_DATA": str(tiny_root), "ICSR_CONFIG": str(tmp_path / "small.yaml")}
    method = ["--method", "cluster-contrast", "--device", "cpu"]
    run("env", *(f"{key}={value}" for key, value in environment.items()), *words, *method, folder=tmp_path)
    [metrics] = tmp_path.glob("runs/tiny/global/*/metrics.jsonl")
    assert len(metrics.read_text().splitlines()) == 1
    assert json.loads(metrics.with_name("environment.json").read_text())["processes"] == 2


def test_the_example(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in next((tiny_root / "tiny").glob("rendered-*/bounding_box_train")).iterdir():
        camera = tmp_path / "crops" / re.search(r"_(c\d+)s", file.name)[1]  # type: ignore[index]
        camera.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, camera)
    small = ["--epochs", 1, "--iters", 2, "--size", 32, 16]
    words = ["crops", *map(str, small)]
    said = Forked(tmp_path / "said", script, ROOT / "examples" / "own_crops.py", words).end()[0]
    assert "Nearest to c1/" in said
    assert "Plain clustering of these features" in said


#: What is typed after each other, in one process.
SESSION = """
import icsr_cli
from icsr_cli.cli.main import app
print(icsr_cli.__file__)
for line in (
    "--version",
    "methods",
    "methods icsr",
    "prepare synthetic --identities 6 --images 3 --size 32x16 -q",
    "train global --init none -a resnet_small --epochs 1 --iters 1 -b 8 -q --method cluster-contrast",
    "report --out page.html --no-map -q",
):
    try:
        app(line.split())
    except SystemExit as ended:
        assert not ended.code, line
"""


def test_the_wheel_works_elsewhere(tmp_path: Path) -> None:
    """Built from the sources, put into an environment of its own, with the libraries of this one."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "icsr_cli", source / "icsr_cli", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, folder=source)
    [wheel] = tmp_path.glob("icsr-*.whl")
    venv.create(tmp_path / "fresh", with_pip=False)
    [python] = (tmp_path / "fresh").glob("bin/python")
    [site] = (tmp_path / "fresh").glob("lib/python*/site-packages")
    shutil.unpack_archive(wheel, site, "zip")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # after its own
    interpreted = [
        f"{name}=1" for name in ("NUMBA_DISABLE_JIT", "OMP_NUM_THREADS")
    ]  # what it is told is little
    (tmp_path / "session.py").write_text(SESSION)
    where, _, said = run("env", *interpreted, python, "session.py", folder=tmp_path).partition("\n")
    assert where.startswith(str(site))
    for words in (f"icsr {icsr_cli.__version__}\n", "camera-aware", "discard"):
        assert words in said
    assert "<svg" in (tmp_path / "page.html").read_text()
