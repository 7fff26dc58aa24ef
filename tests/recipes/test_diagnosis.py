"""Doctor: what is missing, broken, old or slow is said; what is there is not complained of."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.markers import default_environment

from icsr_cli.recipes import diagnosis, installation, machine
from icsr_cli.recipes.diagnosis import Weights, diagnose, findings
from icsr_cli.recipes.installation import Library, libraries
from icsr_cli.recipes.machine import Gpu, Machine, look_at_folder, memory_bytes

STRONG = Machine(
    python="3.12.1",
    platform="Linux",
    processor="a processor",
    cpus=32,
    memory=256 * 10**9,
    memory_free=200 * 10**9,
    gpus=(Gpu("a GPU", 80 * 10**9, 79 * 10**9, "9.0"),),
    driver="570.1",
    cuda="12.8",
    faiss_gpus=1,
    numba_threads=32,
)


def said(changed: Machine, weights: tuple[Weights, ...] = ()) -> str:
    return "\n".join(f"{item.what} {item.advice}" for item in findings(changed, (), weights))


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend what icsr requires, which versions are installed, and what cannot be imported."""

    def pretend(wanted: list[str], there: dict[str, str], broken: tuple[str, ...] = ()) -> None:
        def version(name: str) -> str:
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        def load(name: str) -> object:
            if name in broken:
                raise OSError(f"lib{name}.so: cannot open shared object file")
            return SimpleNamespace()

        extras = SimpleNamespace(get_all=lambda _: ["onnx", "infomap", "dev"])
        monkeypatch.setattr(installation.metadata, "metadata", lambda _: extras)
        monkeypatch.setattr(installation.metadata, "requires", lambda _: wanted)
        monkeypatch.setattr(installation.metadata, "version", version)
        monkeypatch.setattr(installation.importlib, "import_module", load)

    return pretend


def states(found: tuple[Library, ...]) -> dict[str, str]:
    return {library.name: library.state for library in found}


def test_this_installation_is_healthy(tmp_path: Path) -> None:
    found = diagnose(tmp_path / "data", tmp_path / "runs")
    assert found.healthy
    needed = {library.name for library in found.libraries if library.extra is None}
    assert {"icsr", "torch", "numpy", "numba", "scikit-learn", "typer"} <= needed
    assert "pytest" not in {library.name for library in found.libraries}
    assert found.machine.cpus >= 1
    assert found.machine.numba_threads
    assert not list(tmp_path.iterdir())  # nothing is written
    assert {"resnet50", "resnet_ibn50a"} <= {item.arch for item in found.weights}


def test_missing_old_and_broken_libraries(requirements: Callable[..., None]) -> None:
    requirements(
        ["torch>=2.6", "numpy>=1.26", "scipy>=1.13", "rich>=13.9", "onnx>=1.17; extra == 'onnx'",
         "infomap>=2.8; extra == 'infomap'", "pytest>=8; extra == 'dev'"],
        {"icsr": "1", "torch": "2.10.1+cpu", "numpy": "1.9.5", "rich": "13.10", "infomap": "2.1"},
        broken=("rich",),
    )  # fmt: skip
    found = libraries()
    assert states(found) == {
        "icsr": "ok",
        "torch": "ok",  # 2.10 is later than 2.6
        "numpy": "bad",
        "scipy": "bad",
        "rich": "bad",
        "onnx": "optional",
        "infomap": "warning",
    }
    advice = {library.name: library.advice for library in found}
    assert advice["scipy"] == "pip install 'scipy>=1.13'"
    assert advice["onnx"] == "pip install 'icsr[onnx]'"
    assert "shared object" in advice["rich"]
    assert "--upgrade" in advice["numpy"]


@pytest.mark.parametrize(("platform", "wanted"), [("linux", "faiss-gpu"), ("darwin", "faiss-cpu")])
def test_faiss_is_looked_for_as_this_platform_has_it(
    requirements: Callable[..., None], monkeypatch: pytest.MonkeyPatch, platform: str, wanted: str
) -> None:
    lines = [
        "faiss-gpu>=1.14.3; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "faiss-cpu>=1.10; sys_platform != 'linux' or platform_machine != 'x86_64'",
    ]
    here = {"sys_platform": platform, "platform_machine": "x86_64"}
    monkeypatch.setattr("packaging.markers.default_environment", lambda: default_environment() | here)
    requirements(lines, {"icsr": "1", wanted: "1.15"})
    assert states(libraries()) == {"icsr": "ok", wanted: "ok"}
    other = {"faiss-gpu": "faiss-cpu", "faiss-cpu": "faiss-gpu"}[wanted]
    requirements(lines, {"icsr": "1", other: "1.12"})
    assert states(libraries()) == {"icsr": "ok", other: "ok"}
    requirements(lines, {"icsr": "1"})
    assert states(libraries()) == {"icsr": "ok", wanted: "bad"}


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation.metadata, "requires", missing)
    assert states(libraries()) == {"icsr": "bad"}


def test_a_broken_torch_is_told_of_and_nothing_else_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = importlib.import_module

    def load(name: str) -> object:
        if name in ("torch", "faiss"):
            raise ImportError("undefined symbol")
        return real(name)

    monkeypatch.setattr(installation.importlib, "import_module", load)
    found = diagnose(tmp_path, tmp_path)
    assert not found.healthy
    assert states(found.libraries)["torch"] == "bad"
    assert found.machine.gpus == ()
    assert found.weights == ()
    assert found.as_dict()["healthy"] is False


def test_a_strong_machine_has_nothing_to_hear() -> None:
    assert said(STRONG) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpus": (), "driver": None, "cuda": None, "faiss_gpus": 0}, "torch finds no GPU."),
        ({"gpus": (), "faiss_gpus": 0}, "Check the driver against CUDA 12.8"),
        ({"gpus": (), "cuda": None, "faiss_gpus": 0}, "built without CUDA"),
        ({"faiss_gpus": 0}, "faiss sees no GPU"),
        ({"faiss_gpus": None}, "faiss sees no GPU"),
        ({"faiss_gpus": 2}, "torch sees 1 GPUs, faiss 2"),
        ({"gpus": (Gpu("a GPU", 80 * 10**9, 10**9, "9.0"),)}, "1.0 GB of 80.0 GB free"),
        ({"cpus": 1, "numba_threads": 1}, "will be slow: 1 CPU core."),
        ({"numba_threads": 2}, "2 of 32 cores"),
        ({"memory": 4 * 10**9}, "4.0 GB of memory"),
    ],
)
def test_what_is_slow_is_said(changes: dict[str, object], words: str) -> None:
    assert words in said(replace(STRONG, **changes))  # type: ignore[arg-type]


def test_nearest_neighbours_are_slow_only_without_a_gpu() -> None:
    weak = replace(STRONG, cpus=2, numba_threads=2)
    assert "nearest neighbours" not in said(weak)
    assert "nearest neighbours" in said(replace(weak, gpus=(), faiss_gpus=0))


def test_both_faiss_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "version_of", lambda _: "1.15")
    assert "overwrite each other" in said(STRONG)


def test_missing_imagenet_weights_say_where_from_and_where_to() -> None:
    here = Weights("resnet50", Path("/cache/resnet50.pth"), False, "https://example.org/resnet50.pth")
    text = said(STRONG, (here,))
    assert "https://example.org/resnet50.pth" in text
    assert "/cache/resnet50.pth" in text
    assert said(STRONG, (replace(here, present=True), replace(here, arch="resnet152"))) == ""


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=100 * 10**9)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    assert look_at_folder("data", tmp_path / "not" / "there").state == "ok"
    usage.free = 10**9
    found = look_at_folder("runs", tmp_path)
    assert (found.state, found.free) == ("warning", 10**9)
    assert "--runs" in found.advice
    (tmp_path / "file").write_text("")
    assert look_at_folder("data", tmp_path / "file").state == "bad"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert look_at_folder("data", tmp_path).state == "bad"


def test_a_container_s_limits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str] = {}
    whole = SimpleNamespace(total=64_000_000_000, available=32_000_000_000)
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: whole)
    assert memory_bytes() == (64_000_000_000, 32_000_000_000)
    files |= {"/sys/fs/cgroup/memory.max": "8000000000", "/sys/fs/cgroup/memory.current": "3000000000"}
    assert memory_bytes() == (8_000_000_000, 5_000_000_000)
    files["/sys/fs/cgroup/memory.max"] = "max"
    assert memory_bytes() == (64_000_000_000, 32_000_000_000)
