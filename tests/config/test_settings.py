from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from icsr_cli import config
from icsr_cli.clustering import clusterer
from icsr_cli.config.loader import packaged_names
from icsr_cli.errors import UsageError


@pytest.mark.parametrize("name", packaged_names())
def test_every_file_that_comes_with_icsr_is_valid(name: str) -> None:
    settings = config.load(name)
    clustering = settings.global_.clustering
    clusterer(clustering.method).check(clustering.options)
    assert settings.dataset == name


def test_published_settings() -> None:
    settings = config.load("market1501")
    assert (settings.cam.epochs, settings.cam.iters, settings.cam.model.arch) == (20, 100, "resnet50")
    assert (settings.global_.epochs, settings.global_.iters) == (50, 200)
    assert settings.global_.model.arch == "resnet_ibn50a"
    assert (settings.cam.memory.momentum, settings.global_.memory.momentum) == (0.2, 0.1)
    assert settings.global_.clustering.options == {"n_clusters": 1200}
    assert config.load("msmt17").global_.iters == 400
    assert (config.load("veri").image.height, config.load("veri").image.width) == (224, 224)


def test_the_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("cam: {epochs: 3, iters: 7, batch_size: 32}\n")
    settings = config.load(
        "market1501",
        config=file,
        options={"cam.iters": 8, "cam.batch_size": 16},
        assignments=["cam.batch_size=8"],
    )
    assert (settings.cam.epochs, settings.cam.iters, settings.cam.batch_size) == (3, 8, 8)


def test_a_data_set_without_a_file_takes_that_of_its_family() -> None:
    assert config.load("corridor", family="synthetic").cam.network == "shared"
    assert config.load("corridor").global_.clustering.method == "dbscan"


def test_every_fault_is_in_one_report(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("cam: {epochz: 3, iters: many}\n")
    with pytest.raises(UsageError) as caught:
        config.load("market1501", config=file, assignments=["globl.epochs=2", "image.height=0"])
    report = str(caught.value)
    assert "cam.epochz" in report
    assert "cam.epochs?" in report
    assert str(file) in report
    assert "cam.iters" in report
    assert "'many'" in report
    assert "did you mean global?" in report
    assert "--set globl.epochs=2" in report
    assert "image.height" in report


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["cam.batch_size=63"], "multiple of num_instances"),
        (["cam.network=shared", "cam.batch_size=12"], "cameras_per_batch"),
        (["nonsense"], "key=value"),
        (["=3"], "key=value"),
        (["seed=-1"], "seed"),
        (["global.refinement.method=all"], "refinement.method"),
    ],
)
def test_values_that_do_not_fit(assignments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config.load("market1501", assignments=assignments)


@pytest.mark.parametrize(
    ("content", "words"),
    [("- a\n- b\n", "not keys with values"), ("a: [1\n", "YAML"), ("\xff", "settings")],
)
def test_a_file_that_is_no_settings(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        config.load("market1501", config=file)


def test_a_missing_file_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="market1501"):
        config.load("market1501", config=tmp_path / "none.yaml")


def test_what_is_dumped_can_be_loaded_again(tmp_path: Path) -> None:
    settings = config.load("synthetic", assignments=["seed=9"])
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings.dump()))
    assert config.load("synthetic", config=file) == settings
