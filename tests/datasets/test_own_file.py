"""A data set in a file of the user's own: run when it is prepared, and never again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from icsr_cli import config, datasets
from icsr_cli.cli.main import app
from icsr_cli.errors import DatasetError
from icsr_cli.progress import Progress
from icsr_cli.recipes.opening import start
from icsr_cli.recipes.wish import Wish
from icsr_cli.reports.pages.run import RunView, run_page

ROOT = Path(__file__).parents[2]


def page_file() -> str:
    page = (ROOT / "docs" / "write_your_own.md").read_text(encoding="utf-8")
    found = re.search(r"^The file `corridor\.py`.*?^```python\n(.*?)^```", page, re.M | re.S)
    assert found
    return found[1]


def prepare(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["prepare", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_bytes) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ICSR_DATA", raising=False)
    for number in range(12):
        folder = tmp_path / "crops" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"p{number % 3:04}-k{number % 4 + 1}-{number:06}.jpg"
        (folder / name).write_bytes(image_bytes(number))
    (tmp_path / "corridor.py").write_text(page_file())
    return tmp_path


def test_it_is_read_and_its_settings_are_kept(home: Path) -> None:
    report = json.loads(prepare("corridor", "--plugin", "corridor.py", "--source", "crops", "--json").stdout)
    assert report["differences"] == ["train: 1 identities; published are 6"]
    data = datasets.load("corridor", home / "data")
    assert data.layout == "plugin"
    assert data.train.records[0].frame == 0
    details = json.loads((home / "data/corridor/index.json").read_text())["details"]
    assert details["plugin"][0] == "corridor.py"
    assert len(details["plugin"][1]) == 64
    (home / "corridor.py").unlink()
    settings = config.load_for(datasets.load("corridor", home / "data"))
    assert (settings.image.height, settings.image.width) == (32, 16)
    assert settings.method == "camera-aware"
    assert settings.global_.clusterer.eps == 0.6
    assert "all sound" in prepare("corridor", "--verify").stdout
    assert "corridor" in prepare("--list").stdout
    shutil.rmtree(home / "crops")
    with pytest.raises(DatasetError, match=r"icsr prepare corridor --plugin corridor\.py --source PATH"):
        datasets.load("corridor", home / "data")


def test_every_command_goes_by_its_settings(home: Path) -> None:
    prepare("corridor", "--plugin", "corridor.py", "--source", "crops")

    def icsr(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return done.stdout

    printed = yaml.safe_load(icsr("methods", "camera-aware", "-d", "corridor"))
    assert (printed["image"]["height"], printed["global"]["clusterer"]["eps"]) == (32, 0.6)
    assert "32 x 16" in icsr("models", "resnet_small", "-d", "corridor")
    plan = ["doctor", "--plan", "--gpus", "1", "-d", "corridor", "-a", "resnet_small", "--json"]
    small = ["--set", "image.height=32", "--set", "image.width=16"]
    assert icsr(*plan) == icsr(*plan, *small)


def test_the_report_holds_a_run_against_its_settings(home: Path) -> None:
    prepare("corridor", "--plugin", "corridor.py", "--source", "crops")
    wish = Wish(home / "runs", assignments=("global.epochs=7", "global.model.arch=resnet_small"))
    wish = replace(wish, options={"global.model.weights": "none"})
    run, _ = start(datasets.load("corridor", home / "data"), "global", wish, Progress())
    nothing = RunView(None, None, None, dict.fromkeys(("labels", "retrieval", "rankings", "map"), "none"))
    page = run_page(run, nothing)
    assert "Differing from those of camera-aware for this data set, and marked ●: 3." in page
    run.update_info(dataset_settings=None)  # as of a run of an earlier version
    assert "Differing from" not in run_page(run, nothing)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["methods", "icsr", "-d", "market"], "'market' is not prepared"),
        (["models", "resnet_small", "-d", "market"], "'market' is not prepared"),
        (["doctor", "--plan", "-d", ""], "-d is empty"),
        (["methods", "-d", "veri"], "go with a method"),
        (["methods", "--set", "seed=5"], "go with a method"),
        (["methods", "--config", "x.yaml"], "go with a method"),
    ],
)
def test_no_other_settings_stand_for_those_of_an_unknown_one(
    home: Path, command: list[str], words: str
) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert words in " ".join(done.stderr.split())


def test_without_a_name_and_in_other_orders(home: Path) -> None:
    prepare("--plugin", "corridor.py", "--source", "crops")
    prepare("plugin", "--plugin=corridor.py", "--source", "crops", "corridor")
    prepare("corridor", "--source", "crops", "--plugin=corridor.py")
    assert datasets.names(home / "data") == ("corridor",)


def test_it_is_run_by_the_command_line_alone(home: Path) -> None:
    marked = page_file() + "\nfrom pathlib import Path\nPath('ran').open('a').write('x')\n"
    (home / "corridor.py").write_text(marked)
    prepare("corridor", "--plugin", "corridor.py", "--source", "crops")
    assert (home / "ran").read_text() == "x"
    settings = ("--epochs", "1", "--iters", "1", "-a", "resnet_small", "--init", "none", "-b", "4")
    CliRunner().invoke(app, ["train", "global", "-d", "corridor", *settings, "--name", "r"])
    assert (home / "runs/corridor/global/r/settings.yaml").is_file()
    CliRunner().invoke(app, ["eval", "-d", "corridor"])
    assert (home / "ran").read_text() == "x"


OWN_READER = """
from icsr_cli.datasets import Reading
from icsr_cli.types import ImageRecord
class Layout:
    parts = ("a",)
    def describe(self): return "a folder a"
    def read(self, root): {body}
from dataclasses import replace
BENCHMARK = replace(BENCHMARK, layouts=(Layout(),))
"""


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        ("BENCHMARK = 3", "is no data set: it must define BENCHMARK", 2),
        ("1 / 0", "fails when it is loaded: ZeroDivisionError", 2),
        ("{page}\nBENCHMARK.settings['x'] = {{1}}", "are no plain values", 2),
        ("{page}\nBENCHMARK.settings['metod'] = 'icsr'", "did you mean method?", 2),
        (
            "{page}\nfrom dataclasses import replace\nBENCHMARK = replace(BENCHMARK, name='shop')",
            "not 'corridor'",
            2,
        ),
        ("{page}" + OWN_READER.replace("{body}", "return 1 / 0"), "fails: ZeroDivisionError", 1),
        ("{page}" + OWN_READER.replace("{body}", "return 7"), "gives a int, not a Reading", 1),
        (
            "{page}" + OWN_READER.replace("{body}", "return Reading(root, {{'test': ()}}, ('x',))"),
            "gives a split 'test'",
            1,
        ),
        (
            "{page}"
            + OWN_READER.replace(
                "{body}", "return Reading(root, {{'train': (ImageRecord('a/1.jpg', 4),)}}, ('x',))"
            ),
            "gives a/1.jpg the camera 4, of 1 camera_names",
            1,
        ),
        (
            "{page}"
            + OWN_READER.replace(
                "{body}", r"return Reading(root, {{'train': (ImageRecord('a/\0.jpg', 0),)}}, ('x',))"
            ),
            "no file has a NUL in its path",
            1,
        ),
    ],
)
def test_what_is_wrong_is_said(home: Path, content: str, message: str, code: int) -> None:
    (home / "corridor.py").write_text(content.format(page=page_file()) if "{page}" in content else content)
    result = prepare("corridor", "--plugin", "corridor.py", "--source", "crops", code=code)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not (home / "data" / "corridor" / "index.json").exists()
    method = prepare("corridor", "--plugin", "nowhere.py", code=2).stderr
    assert "cannot be read" in " ".join(method.split())


def test_the_name_of_another_data_set_is_refused(home: Path) -> None:
    (home / "corridor.py").write_text(page_file().replace('name="corridor"', 'name="veri"'))
    said = prepare("--plugin", "corridor.py", "--source", "crops", code=2).stderr
    assert "another kind of data set" in " ".join(said.split())
