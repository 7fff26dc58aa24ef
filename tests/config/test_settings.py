from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from in_process import icsr

from icsr_cli import choices, config, datasets
from icsr_cli.cli.options import Clusterer
from icsr_cli.errors import UsageError
from icsr_cli.plain_yaml import flat


@pytest.mark.parametrize("name", [*datasets.available(), "synthetic", "own"])
@pytest.mark.parametrize("method", config.methods())
def test_every_data_set_has_settings_for_every_method(name: str, method: str) -> None:
    settings = config.load(name, method=method)
    assert (settings.dataset, settings.method) == (name, method)
    assert settings.stages[-1] == "global"


def test_published_settings() -> None:
    settings: Any = config.load("market1501", method="icsr")
    assert (settings.cam.epochs, settings.cam.iters, settings.cam.model.arch) == (20, 100, "resnet50")
    assert (settings.global_.epochs, settings.global_.iters) == (50, 200)
    assert settings.global_.model.arch == "resnet_ibn50a"
    assert (settings.cam.memory[0].momentum, settings.global_.memory[0].momentum) == (0.2, 0.1)
    assert settings.cam.clusterer.images_per_cluster == 5
    assert settings.global_.clusterer.n_clusters == 1200
    assert [refiner.method for refiner in settings.global_.refiners] == ["discard"]
    assert config.load("msmt17").global_.iters == 400
    assert (config.load("veri").image.height, config.load("veri").image.width) == (224, 224)


@pytest.mark.parametrize("method", [name for name in config.methods() if name != "camera-aware"])
def test_published_methods_draw_as_their_code_does(method: str) -> None:
    settings: Any = config.load("market1501", method=method)
    stages = [settings.global_, *([settings.cam] if "cam" in settings.stages else [])]
    assert [stage.sampler.published for stage in stages] == [True] * len(stages)


def test_methods_say_which_is_the_default() -> None:
    published = {config.load(name).method for name in datasets.available()}
    [own] = {config.load(name).method for name in ("folder", "synthetic")}
    said = (
        f"Left out: {', '.join(published)} for published data sets, {own} for own crops and synthetic data."
    )
    assert said in " ".join(icsr("methods").stdout.split())


def test_the_worth_of_methods_is_that_of_the_results() -> None:
    """Every world that a method was measured in is said, and nothing else."""
    results = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    today = results.partition("### What each part is worth")[0]
    worlds = re.split(r"^The `(\w+)` world.*:$", today, flags=re.M)[1:]
    measured = 0
    for name, method in config.methods().items():
        row = re.compile(rf"^\| [^|]*`{name}`\)? \| (\S+ ± \S+) \| (\S+) \|", re.M)
        rows = [(world, row.search(text)) for world, text in zip(worlds[::2], worlds[1::2], strict=True)]
        found = [(world, *line.groups()) for world, line in rows if line]
        measured += len(found)
        assert re.findall(r"(\w+) ([\d.]+ ± [\d.]+)", method.worth) == [line[:2] for line in found]
        shares = re.findall(r"[\d.]+(?=,| and \d| %)", method.worth.partition("which is ")[2])
        assert shares == [line[2] for line in found]
        assert found or method.worth.startswith("not measured here")
    assert measured == 12  # four of plain clustering, of icsr and of camera-aware
    for name, place in (("camera-aware", "It is not free"), ("icsr", "- **A network per camera**")):
        [line] = [line for line in results.splitlines() if line.startswith(place)]
        figures = re.findall(r"\d[\d.]*\d", config.methods()[name].cost)
        assert figures
        assert set(figures) <= set(re.findall(r"\d[\d.]*\d", line))


@pytest.mark.parametrize("name", ["average-linkage", "dbscan", "hdbscan", "infomap", "tracks"])
def test_the_page_and_the_help_name_each_clusterer(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "clusterers.md"
    [row] = re.findall(rf"^\| `{name}` .*$", page.read_text(encoding="utf-8"), re.M)
    assert [
        key for key in choices.find("clusterers", name).Options.model_fields if f"`{key}`" not in row
    ] == []
    assert name in get_args(Clusterer)[1].metavar.strip("[]").split("|")


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


def test_a_data_set_without_settings_takes_those_of_its_family() -> None:
    assert config.load("corridor", family="synthetic").cam.network == "shared"
    assert config.load("corridor").global_.clusterer.method == "dbscan"


@pytest.mark.parametrize("stage", ["cam", "global"])
@pytest.mark.parametrize("fault", ["pad=-1", "border=grey", "flip=1.5", "flip=nan", "erase=-0.1"])
def test_an_augmentation_that_cannot_be(stage: str, fault: str) -> None:
    with pytest.raises(
        UsageError, match=rf"{stage}\.augmentation\.{fault.partition('=')[0]} .*input should be"
    ):
        config.load("market1501", assignments=[f"{stage}.augmentation.{fault}"])


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
        (["cam.num_instances=1", "cam.bn_group=1"], "bn_group 1 must be 2 or more"),
        (["cam.network=shared", "cam.batch_size=12"], "cameras_per_batch"),
        (["nonsense"], "key=value"),
        (["=3"], "key=value"),
        (["seed=-1"], "seed"),
        (["global.local_distance=cosine"], "local names no clusterer"),
        (
            ["global.refiners=[all]"],
            r"global.refiners.0 .*no 'all' among the refiners; there are cannot-link, discard",
        ),
        (["global.clusterer=dbscam"], r"global.clusterer .*Did you mean 'dbscan'"),
        (["global.clusterer={method: dbscan, ep: 0.4}"], r"global.clusterer.ep .*did you mean eps"),
        (["global.clusterer={method: dbscan, eps: -1}"], r"global.clusterer.eps .*greater than 0; got -1"),
        (["global.clusterer={method: dbscan, min_samples: 99999999999999999999}"], "clusterer.min_samples"),
        (["global.distance.k2=40"], r"global.distance .*k2 must be at most k1; got k2 = 40 and k1 = 30"),
        (
            ["cam.model.weights=cam"],
            r"cam \(--set cam.model.weights=cam\): model.weights: cam is for the global",
        ),
        (["global.model.arch=resnet51"], r"global.model.arch .*resnet50"),
        (["global.refiners=[discard, split]", "global.refiners.k=3"], "is a list of 2: say which is meant"),
        (["global.refiners=[discard, split]", "global.refiners.2.k=3"], "refiners.0 to refiners.1"),
        (["global.refiners=[discard, split]", "global.refiners={0: {k: 3}, 2: {k: 3}}"], "0 to refiners.1"),
        (
            ["cam.memory=[camera-proxies]", "cam.memory.1.weight=0.5"],
            r"list of 1: say which is meant, memory\.0\.",
        ),
        (
            ["global.refiners=[]", "global.refiners.k=3"],
            r"give it whole, or name some first \(--refine NAME\)",
        ),
        (["global.memory=[]", "global.memory.momentum=0.3"], r"memory is a list of 0: give it whole\."),
        (["global.optimizer="], r"global.optimizer .*a method's name or its keys"),
        (["global.memory=[null]"], r"global.memory.*a method's name or its keys"),
        (["global.refiners=null"], r"global.refiners.*"),
        (["cam.clusterer=null"], r"cam.clusterer .*a method's name or its keys"),
        (["global.optimizer.lr=.inf"], r"global.optimizer.lr .*finite"),
        (["global.model.std=[0, 0, 0]"], r"global.model.std.0 .*0.001"),
        (["global.model.mean=[1, 2, 0.5]"], r"global.model.mean.1 .*less than or equal to 1"),
    ],
)
def test_values_that_do_not_fit(assignments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config.load("market1501", assignments=assignments)


@pytest.mark.parametrize(
    "assignment",
    [
        "seed=true",
        "image.height=on",
        "cam.optimizer.lr=yes",
        "cam.optimizer.milestones=[yes, 3]",
        "global.clusterer.min_size=true",
        "global.model.std=[0.5, true, 1]",
    ],
)
def test_a_truth_value_is_no_number(assignment: str) -> None:
    with pytest.raises(UsageError, match=r"yes and no .* do not fit here") as caught:
        config.load("market1501", assignments=[assignment])
    key = assignment.partition("=")[0]
    assert f"- {key} (--set {assignment}): " in str(caught.value)
    assert config.load("market1501", assignments=["sync_bn=yes"]).sync_bn is True


def test_a_fault_of_a_section_names_what_set_it() -> None:
    others = {"options": {"global.batch_size": 18}, "assignments": ["global.iters=2"]}
    with pytest.raises(UsageError, match=r"global \(the command line\): batch_size 18 is not a multiple"):
        config.load("market1501", **others)


@pytest.mark.parametrize(
    ("content", "words"),
    [("- a\n- b\n", "not keys with values"), ("a: [1\n", "YAML"), ("\xff", "cannot be read as YAML")],
)
def test_a_file_that_is_no_settings(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        config.load("market1501", config=file)


def test_a_missing_file_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="methods"):
        config.load("market1501", config=tmp_path / "none.yaml")


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'cluster-contrast'"):
        config.load("market1501", method="cluster-contrasd")


def test_a_file_or_an_assignment_of_another_method_is_refused(tmp_path: Path) -> None:
    """It may have all settings: a run would name a method that it was not trained by."""
    file = tmp_path / "own.yaml"
    file.write_text("method: icsr\nglobal: {epochs: 3}\n")
    with pytest.raises(UsageError, match=r"own.yaml says the method icsr, but it is cluster-contrast here"):
        config.load("market1501", config=file, method="cluster-contrast")
    assert config.load("market1501", config=file, method="icsr").method == "icsr"
    with pytest.raises(UsageError, match="Say --method cluster-contrast, or leave"):
        config.load("market1501", assignments=["method=cluster-contrast"])
    with pytest.raises(UsageError, match="--set dataset=msmt17: the data set is market1501 here; -d msmt17"):
        config.load("market1501", assignments=["dataset=msmt17"])
    file.write_text("method: 0")
    with pytest.raises(UsageError, match="There is no method '0'"):
        config.load("market1501", config=file)


def test_a_default_behind_a_fault_is_no_fault() -> None:
    with pytest.raises(UsageError) as caught:
        config.load("market1501", options={"global.model.arch": "nix"})
    assert "PydanticUndefined" not in str(caught.value)
    assert str(caught.value).count("\n  - ") == 1


@pytest.mark.parametrize("content", ["", "seed: 2\n", "cam: {}\n", "global: {epochs: 3}\n"])
def test_a_file_may_be_partial_or_empty(tmp_path: Path, content: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(content)
    for dataset in ("market1501", "synthetic"):
        assert config.load(dataset, config=file, method="icsr").cam.epochs > 3


def test_a_number_of_clusters_is_held_against_the_images() -> None:
    with pytest.raises(UsageError, match=r"global.clusterer.n_clusters .*1,200 clusters of 400 images"):
        config.load("market1501", method="icsr", images={"global": 400})
    least = {"dbscan": "min_samples", "hdbscan": "min_cluster_size", "infomap": "min_size"}
    for method, key in {**least, "average-linkage": "min_size"}.items():
        own = [f"global.clusterer={{method: {method}, {key}: 401}}"]
        own += ["global.clusterer.n_clusters=9"] if method == "average-linkage" else []
        with pytest.raises(UsageError, match=rf"global.clusterer.{key} .*a cluster of 401 of 400 images"):
            config.load("folder", assignments=own, images={"global": 400})


def test_one_of_a_list_needs_no_list() -> None:
    settings: Any = config.load("market1501", assignments=["global.refiners=split"])
    assert [refiner.method for refiner in settings.global_.refiners] == ["split"]


def test_another_method_drops_the_keys_of_the_former() -> None:
    settings: Any = config.load(
        "market1501", method="icsr", options={"global.clusterer": {"method": "dbscan"}}
    )
    assert settings.global_.clusterer.dump() == {"method": "dbscan", "eps": 0.5, "min_samples": 4}


def test_a_choice_that_names_none_is_the_one_of_its_stage() -> None:
    """Of the cam stage another clusterer than of the global one; a memory as well."""
    given = ["cam.clusterer.images_per_cluster=4", "global.memory.momentum=0.3"]
    same = ["cam.clusterer.method=average-linkage", "global.memory.method=clusters"]
    found: Any = config.load("own", method="cluster-contrast", assignments=[*given, *same])
    assert found.cam.clusterer.images_per_cluster == 4
    assert found.global_.memory[0].momentum == 0.3
    other: Any = config.load(
        "own", method="cluster-contrast", assignments=[*given, "cam.clusterer.method=dbscan"]
    )
    assert other.cam.clusterer.method == "dbscan"


def test_what_another_network_cannot_have_is_said_by_its_key() -> None:
    with pytest.raises(UsageError) as caught:
        config.load("market1501", method="cluster-contrast-vit-s", options={"global.model.arch": "resnet18"})
    source = "(the method cluster-contrast-vit-s)"
    assert str(caught.value).splitlines()[1:] == [
        f"  - global.model.drop_path {source}: resnet18 has no stochastic depth; set it to 0",
        f"  - global.model.pooling {source}: cls takes the class token, and resnet18 has none; set it to gem",
    ]


def test_one_key_of_one_in_a_list() -> None:
    settings: Any = config.load("market1501", method="icsr", assignments=["global.refiners.0.k=9"])
    assert settings.global_.refiners[0].k == 9
    same: Any = config.load("market1501", method="icsr", assignments=["global.refiners.k=9"])
    assert same == settings


def test_keys_of_a_choice_that_was_given_by_name() -> None:
    settings: Any = config.load(
        "own",
        options={"global.refiners": ["split"]},
        assignments=["global.refiners.k=9", "cam.sampler=identity"],
    )
    assert settings.global_.refiners[0].dump()["k"] == 9
    assert settings.global_.refiners[0].method == "split"


@pytest.mark.parametrize(
    ("assignment", "choice", "expected"),
    [
        ("cam.memory.temperature=0.1", "memory", {"temperature": 0.1, "momentum": 0.2}),
        ("cam.memory=clusters", "memory", {"momentum": 0.2}),
        ("cam.memory=[{weight: 0.5}, camera-proxies]", "memory", {"weight": 0.5, "momentum": 0.2}),
        ("cam.memory.momentum=0.4", "memory", {"momentum": 0.4}),
        ("cam.clusterer.images_per_cluster=auto", "clusterer", {"images_per_cluster": "auto"}),
        ("cam.clusterer.distance_threshold=0.6", "clusterer", {"method": "average-linkage"}),
        ("cam.iters=3", "clusterer", {"method": "average-linkage", "images_per_cluster": 5}),
    ],
)
def test_one_key_of_a_choice_leaves_the_others_of_its_stage(
    assignment: str, choice: str, expected: dict[str, Any]
) -> None:
    settings = config.load("market1501", method="icsr", assignments=[assignment])
    found = getattr(settings.cam, choice)
    found = (found[0] if isinstance(found, tuple) else found).dump()
    assert found == {**found, **expected}


@pytest.mark.parametrize("method", ["icsr", "camera-aware"])
@pytest.mark.parametrize("name", ["market1501", "synthetic"])
def test_a_setting_given_as_it_is_changes_nothing(name: str, method: str) -> None:
    """None takes the defaults of its section, or of its choice, away from the others."""
    settings = config.load(name, method=method)
    leaves = dict(flat(settings.dump()))
    assert len(leaves) > 80
    for key, value in leaves.items():
        assert config.load(name, method=method, options={key: value}) == settings, key


def test_settings_in_the_former_form_are_read_with_a_word(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "cam: {images_per_cluster: 7}\n"
        "global:\n"
        "  clustering: {method: infomap, options: {min_size: 3}}\n"
        "  refinement: {method: split, k: 9}\n"
    )
    said: list[str] = []
    settings: Any = config.load("market1501", config=file, note=said.append)
    assert settings.cam.clusterer.images_per_cluster == 7
    assert (settings.global_.clusterer.min_size, settings.global_.clusterer.k) == (3, 9)
    assert [refiner.dump()["method"] for refiner in settings.global_.refiners] == ["split"]
    assert [line.partition(": ")[2] for line in said] == [
        "cam.images_per_cluster is now cam.clusterer.images_per_cluster",
        "global.clustering is now global.clusterer",
        "global.refinement is now global.refiners",
    ]


def test_the_former_form_takes_nothing_of_todays_away(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("cam: {images_per_cluster: 7, clusterer: {min_size: 2}}")
    clusterer: Any = config.load("market1501", config=file).cam.clusterer
    assert (clusterer.images_per_cluster, clusterer.min_size) == (7, 2)
    file.write_text("cam: {images_per_cluster: 7, clusterer: {method: dbscan, eps: 0.3}}")
    with pytest.raises(UsageError, match=r"cam.images_per_cluster .*no such setting"):
        config.load("market1501", config=file)


def test_a_fault_is_no_other_keys_with_the_same_beginning(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("global: {epoch: 3, local: bogus}")
    later = {"options": {"global.epochs": 5}, "assignments": ["global.local_distance=cosine"]}
    with pytest.raises(UsageError) as caught:
        config.load("market1501", config=file, **later)
    assert str(caught.value).count(f"({file})") == 2


def test_the_former_form_beside_todays(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("global: {clusterer: infomap, refinement: {method: discard, k: 3}}")
    settings: Any = config.load("market1501", config=file)
    assert (settings.global_.clusterer.method, settings.global_.clusterer.k) == ("infomap", 3)
    for clusterer, refinement in (("infomap", "{method: discard}"), ("dbscan", "{method: discard, k: 3}")):
        file.write_text(f"global: {{clusterer: {clusterer}, refinement: {refinement}}}")
        assert config.load("market1501", config=file).global_.clusterer.method == clusterer


@pytest.mark.parametrize(
    "odd",
    [
        "clustering: {method: dbscan, options: [1]}",
        "clustering: {method: dbscan, options: 3}",
        "clusterer: [1], refinement: {method: discard, k: 3}",
    ],
)
def test_odd_values_in_the_former_form(tmp_path: Path, odd: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"global: {{{odd}}}")
    with pytest.raises(UsageError, match="Settings that do not fit"):
        config.load("market1501", config=file)


def test_what_is_dumped_can_be_loaded_again(tmp_path: Path) -> None:
    settings = config.load("synthetic", assignments=["seed=9"])
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings.dump()))
    assert config.load("synthetic", config=file) == settings
