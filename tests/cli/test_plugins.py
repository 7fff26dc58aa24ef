"""Files of the user's own, ``--plugin``: what they do wrong is said in one message that names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from in_process import icsr
from tiny_world import TINY
from typer.testing import Result

from icsr_cli import choices
from icsr_cli.models import build, save_weights

HEAD = "from dataclasses import replace\nimport numpy as np\nfrom icsr_cli import choices\n"
OPTIONS = "class Options(choices.Options):\n    pass\n"


def refiner(body: str) -> str:
    return f"{HEAD}{OPTIONS}def refine(evidence, labels, options):\n    {body}\n"


def run(folder: Path, source: str, *options: object) -> Result:
    """Label 12 features by a refiner, or by a clusterer, that is called ``mine``."""
    (folder / "mine.py").write_text(source)
    np.savez(folder / "f.npz", features=np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
    kind = ["--refine", "none", "-c", "mine"] if "def cluster" in source else ["--refine", "mine"]
    given = ["-m", "cluster-contrast", "--k1", 4, "--k2", 2, *kind, *options]
    return icsr("labels", "generate", folder / "f.npz", "--plugin", folder / "mine.py", *given)


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("raise SystemExit", 2, "fails when it is loaded: SystemExit"),
        (f"{HEAD}Options = 3\ndef refine(*_): pass\n", 2, "its Options must be a class of its own"),
        (f"{HEAD}from icsr_cli.choices import Options\ndef refine(*_): pass\n", 2, "a class of its own"),
        (f"{HEAD}{OPTIONS}refine = 3\n", 2, "is no method"),
        (refiner("raise ValueError('odd')"), 1, "mine.py fails in line 7: ValueError: odd. Mend that file"),
        (refiner("raise SystemExit"), 1, "mine.py fails in line 7: SystemExit"),
        (refiner("return None"), 1, "'mine' gave no Labels"),
        (refiner("return replace(labels, labels=labels.labels[:3])"), 1, "int64 (3,), not int64 (12,)"),
        (refiner("return replace(labels, labels=labels.labels - 7)"), 1, "leave numbers out"),
        (refiner("return replace(labels, states=['kept'])"), 1, "states as (1,), not (12,)"),
        (refiner("return replace(labels, columns={'x': np.ones(2)})"), 1, "x as (2,), not (12,)"),
        (refiner("return replace(labels, columns={'x': labels.labels > 0})"), 1, "x as bool, not int64 or"),
        (refiner("return replace(labels, columns={'path': labels.labels})"), 1, "called 'path'"),
        (f"{HEAD}{OPTIONS}def cluster(*_): return np.arange(12) // 4 * 2", 1, "leave numbers out"),
        (f"{HEAD}{OPTIONS}def cluster(*_): return np.zeros(12)", 1, "float64 (12,), not int64"),
    ],
)
def test_what_a_plugin_does_wrong(tmp_path: Path, source: str, code: int, words: str) -> None:
    result = run(tmp_path, source, "--out", tmp_path / "labels.csv")
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "labels.csv").exists()


def test_an_installed_package_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = {
        "broken_one": "import nothing_of_this_name",
        "no_method": "",
        "whole_one": refiner("return labels"),
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-of-others\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[icsr.methods]\n{name} = {name}\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "whole_one.py").write_text(refiner("return labels"))
    with (tmp_path / "no_method-1.dist-info" / "entry_points.txt").open("a") as file:
        file.write("whole_one = other.whole_one\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(choices, "_plugins", {})
    choices._load_installed.cache_clear()
    try:
        assert "whole-one" in choices.available("refiners")
    finally:
        choices._load_installed.cache_clear()
    failed, none, twice = sorted(caplog.messages)
    assert failed.startswith(
        "The method broken_one of the package broken_one-of-others is left out: ModuleNot"
    )
    assert "no_method is no method: it must define Options" in none
    assert "called like a method that is there, whole-one of the refiners" in twice


def test_any_suffix_and_no_name_twice(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(refiner("return labels"))
    assert run(tmp_path, refiner("return labels"), "--plugin", tmp_path / "text.txt").exit_code == 0
    (tmp_path / "mine.txt").write_text(refiner("return labels"))
    twice = run(tmp_path, refiner("return labels"), "--plugin", tmp_path / "mine.txt")
    assert twice.exit_code == 2
    assert "Two plug-ins are called mine" in twice.stderr


def test_plugins_are_listed_and_shown(tmp_path: Path) -> None:
    source = refiner("return labels").replace("    pass", "    size: int = 3")
    (tmp_path / "mine.py").write_text(f'"""Of\nmy own."""\n{source}')
    plugin = ["--plugin", tmp_path / "mine.py", "--json"]
    assert json.loads(icsr("methods", *plugin).stdout)["refiners"]["mine"] == "Of my own."
    assert json.loads(icsr("methods", "mine", *plugin).stdout)["refiners"]["options"] == {"size": 3}


def test_a_settings_file_with_a_plugin_is_planned_and_looked_at(tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "same.py").write_text(refiner("return labels"))
    (tmp_path / "mine.yaml").write_text("method: cluster-contrast\nglobal: {refiners: [same]}\n")
    save_weights(build("resnet_small"), tmp_path / "weights.safetensors")
    own = ["-d", "tiny", "--config", tmp_path / "mine.yaml", "--data-root", tiny_root]
    for command in (["doctor", "--plan"], ["eval", tmp_path / "weights.safetensors"]):
        assert "no 'same' among the refiners" in icsr(*command, *own).stderr
        result = icsr(*command, *own, "--plugin", tmp_path / "same.py")
        choices._plugins.clear()
        assert result.exit_code == 0, result.output


def test_the_name_of_a_method_that_is_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "single_camera.py"
    file.write_text(refiner("return labels"))
    result = icsr("labels", "generate", tmp_path / "f.npz", "--plugin", file)
    assert result.exit_code == 2
    assert "single-camera of the refiners: rename it" in " ".join(result.stderr.split())


def test_training_that_a_plugin_ends_is_a_failed_run(tiny_root: Path, tmp_path: Path) -> None:
    """Whatever was raised, and wherever: here it is our own code, by what a memory gave."""
    memory = f"{HEAD}{OPTIONS}class Memory:\n    def __init__(self, *_): pass\n    loss = lambda *_: 3.0\n"
    (tmp_path / "odd_memory.py").write_text(memory)
    settings = [word for assignment in (*TINY, "global.memory=odd-memory") for word in ("--set", assignment)]
    places = ["--data-root", tiny_root, "--runs", tmp_path, "--name", "one"]
    own = ["-a", "resnet_small", "--init", "none", "--plugin", tmp_path / "odd_memory.py"]
    result = icsr("train", "global", "-d", "tiny", "-m", "cluster-contrast", *settings, *own, *places)
    assert result.exit_code == 1
    assert "odd_memory.py may have given something else than it should" in " ".join(result.stderr.split())
    info = json.loads((tmp_path / "tiny" / "global" / "one" / "run.json").read_text())
    assert info["status"] == "failed"


def test_a_run_of_a_plugin_is_looked_at_without_it(tiny_root: Path, tmp_path: Path) -> None:
    """Code runs where the command line names it, and what does not need the method does not ask for it."""
    (tmp_path / "same.py").write_text(refiner("return labels"))
    settings = [word for assignment in TINY for word in ("--set", assignment)]
    places = ["--data-root", tiny_root, "--runs", tmp_path]
    own = ["-m", "cluster-contrast", "-a", "resnet_small", "--init", "none", *settings]
    run = ["--plugin", tmp_path / "same.py", "--refine", "same", "--name", "one"]
    assert icsr("train", "global", "-d", "tiny", *own, *run, *places).exit_code == 0
    choices._plugins.clear()
    folder = tmp_path / "tiny" / "global" / "one"
    for words in (
        ["report", folder, "--no-map"],
        ["labels", "inspect", folder, "--html", tmp_path / "page.html"],
        ["eval", folder, "--set", "evaluation.batch_size=8"],
        ["assign", "tiny", "--to", folder, "--out", tmp_path / "assigned.csv"],
        ["train", "global", "-d", "tiny", *own, "--init", folder],
    ):
        result = icsr(*words, *places)
        assert result.exit_code == 0, result.output
        assert "There are no pictures" not in result.output
    again = icsr("train", "global", folder, "--resume", *places)
    assert again.exit_code == 2
    assert "was started with --plugin" in " ".join(again.stderr.split())
