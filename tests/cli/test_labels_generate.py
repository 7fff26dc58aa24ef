import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from icsr_cli.cli.labels_generate import generate
from icsr_cli.cli.main import app as commands
from icsr_cli.clustering import average_linkage, cohesion, dbscan
from icsr_cli.distances import jaccard_similarity, knn
from icsr_cli.distances.features import check_features, unit_rows
from icsr_cli.errors import IcsrError, InputError, UsageError
from icsr_cli.recipes.feature_files import read_features, renamed
from icsr_cli.refinement import information_nodes, node_scores, refine
from icsr_cli.runs import read_labels

app = typer.Typer()
app.command()(generate)


@pytest.fixture
def arrays():
    """20 people under 3 cameras, 9 images each, apart within a camera and shifted between them."""
    rng = np.random.default_rng(0)
    ids, cameras = np.repeat(np.arange(20), 9), np.tile(np.arange(3), 60)
    features = rng.standard_normal((20, 24))[ids] + 0.9 * rng.standard_normal((3, 24))[cameras]
    features = features + 0.5 * rng.standard_normal((180, 24))
    return {"features": features.astype(np.float32), "cameras": cameras, "ids": ids}


def run(tmp_path, arrays, *options):
    path = tmp_path / "features.npz"
    np.savez(path, **arrays)
    result = CliRunner().invoke(app, [str(path), *map(str, options)])
    if isinstance(result.exception, IcsrError):
        raise result.exception
    return result


def test_dbscan_to_npz(tmp_path, arrays):
    out = tmp_path / "labels.npz"
    result = run(tmp_path, arrays, "--set", "eps=0.45", "--set", "min_samples=3", "--k1", 15, "--out", out)
    assert result.exit_code == 0
    similarity = jaccard_similarity(arrays["features"], 15, 6)
    expected = dbscan(similarity, eps=0.45, min_samples=3)
    found = read_labels(out)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.clusters, expected)
    np.testing.assert_array_equal(found.cameras, arrays["cameras"])
    np.testing.assert_array_equal(found.identities, arrays["ids"])
    assert (found.local_clusters == -1).all()
    np.testing.assert_array_equal(found.columns["cohesion"], cohesion(similarity, expected))
    assert f"{expected.max() + 1}" in result.stdout
    assert "silhouette" in result.stdout
    assert "precision" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Written to {out}"


def test_refinement_by_own_local_labels(tmp_path, arrays):
    out = tmp_path / "labels.csv"
    options = ("--clusterer", "average-linkage", "--set", "n_clusters=12", "--k1", 15, "--k2", 3)
    result = run(
        tmp_path, arrays, *options, "--local", "cluster", "--images-per-cluster", 3, "-o", out, "--json"
    )
    summary = json.loads(result.stdout)
    table = read_labels(out)

    cosine = knn(arrays["features"], 15, metric="cosine")
    similarity = jaccard_similarity(arrays["features"], 15, 3)
    clusters = average_linkage(similarity, n_clusters=12)
    local = np.empty(180, dtype=np.int64)
    for camera in range(3):
        rows = arrays["cameras"] == camera
        local[rows] = average_linkage(jaccard_similarity(arrays["features"][rows], 15, 3), n_clusters=20)
    nodes = information_nodes(node_scores(cosine), clusters)
    labels, discarded = refine(clusters, local, arrays["cameras"], nodes)
    assert discarded.any()
    assert table.paths == tuple(map(str, range(180)))
    np.testing.assert_array_equal(table.local_clusters, local)
    np.testing.assert_array_equal(table.clusters, clusters)
    np.testing.assert_array_equal(table.labels, labels)
    np.testing.assert_array_equal(table.states == "discarded", discarded)
    np.testing.assert_array_equal(
        np.flatnonzero(table.states == "node"), np.setdiff1d(nodes, np.flatnonzero(discarded))
    )
    np.testing.assert_array_equal(table.columns["cohesion"], cohesion(similarity, clusters))
    assert summary["states"]["discarded"] == discarded.sum()
    assert summary["clusterer"]["n_clusters"] == 12
    assert [row["labels"] for row in summary["clusterings"]] == ["clustering", "refined"]
    assert summary["clusterings"][0]["clusters"] == 12
    assert 0 < summary["clusterings"][1]["pairwise_precision"] <= 1
    shown = CliRunner().invoke(commands, ["labels", "inspect", str(out), "--cluster", "3"])
    assert shown.exit_code == 0, shown.output


def test_local_labels_of_the_file(tmp_path, arrays):
    """True local labels: the refinement by splitting loses no image and raises the precision."""
    arrays["local_labels"] = arrays["ids"]
    options = ("-c", "average-linkage", "--set", "n_clusters=12", "--refine", "split", "--json", "--k1", 15)
    summary = json.loads(run(tmp_path, arrays, *options).stdout)
    before, after = summary["clusterings"]
    assert after["in_none"] == 0
    assert after["clusters"] > before["clusters"]
    assert after["pairwise_precision"] > before["pairwise_precision"]
    none = json.loads(run(tmp_path, arrays, *options, "--refine", "none").stdout)
    assert set(none["states"]) == {"kept"}
    assert len(none["clusterings"]) == 1


@pytest.mark.parametrize("kind", ["npz", "csv"])
@pytest.mark.parametrize(
    "refiners", ["discard", "split", "single-camera", "majority", "cannot-link", "split,single-camera"]
)
def test_what_any_refiner_writes_is_read(tmp_path, arrays, refiners, kind):
    """An image that `split` throws out has a label all the same, that of its new cluster."""
    out = tmp_path / f"labels.{kind}"
    result = run(tmp_path, arrays, "--local", "cluster", "--refine", refiners, "--out", out, "--json")
    found = read_labels(out)
    words, counts = np.unique(found.states, return_counts=True)
    assert json.loads(result.stdout)["states"] == dict(zip(words.tolist(), counts.tolist(), strict=True))
    if refiners == "split":
        assert (found.labels[found.states == "discarded"] >= 0).any()


def test_infomap_and_an_index(tmp_path, arrays):
    pytest.importorskip("infomap")
    node = ("--set", "refiners.node=last-above-mean")
    result = run(tmp_path, arrays, "-c", "infomap", "--approximate", "hnsw", *node)
    assert result.exit_code == 0
    assert "recall of the index" in result.stdout
    assert "pairwise precision" in result.stdout


def test_paths_of_bytes(tmp_path, arrays):
    names = np.array([f"é{row}.jpg".encode() for row in range(180)])
    assert run(tmp_path, arrays | {"paths": names}, "--out", tmp_path / "labels.csv").exit_code == 0
    assert read_labels(tmp_path / "labels.csv").paths[3] == "é3.jpg"


def test_features_are_not_overwritten(tmp_path, arrays):
    with pytest.raises(UsageError, match="which is read here"):
        run(tmp_path, arrays, "--out", tmp_path / "features.npz")
    assert np.load(tmp_path / "features.npz")["features"].shape == (180, 24)


def test_features_alone(tmp_path, arrays):
    result = run(tmp_path, {"emb": arrays["features"]}, "--key", "features=emb", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["cameras"] is None
    assert "pairwise_precision" not in summary["clusterings"][0]


def change(**changes):
    return lambda arrays: {**arrays, **changes}


@pytest.mark.parametrize(
    ("alter", "options", "error", "message"),
    [
        (change(), ["-c", "dbscam"], UsageError, "Did you mean 'dbscan'"),
        (change(), ["--set", "ep=0.5"], UsageError, "clusterer.ep .*did you mean eps"),
        (change(), ["--set", "global.clusterer.ep=0.5"], UsageError, "clusterer.ep .*did you mean eps"),
        (change(), ["--set", "global.memory.momentum=0.5"], UsageError, "changes nothing here"),
        (change(), ["--set", "local=dbscan"], UsageError, "changes nothing here"),
        (change(), ["--set", "cam.clusterer.eps=1"], UsageError, "--set cam.clusterer.eps=1 changes nothing"),
        (change(), ["--set", "eps"], UsageError, "--set takes key=value.* got 'eps'"),
        (change(), ["--set", "eps=small"], UsageError, "clusterer.eps .*valid number"),
        (change(), ["-c", "average-linkage", "--set", "n_clusters=500"], UsageError, "500 clusters of 180"),
        (change(), ["-c", "average-linkage"], UsageError, "takes one of n_clusters, distance_threshold"),
        (change(), ["--set", "eps=2"], UsageError, "clusterer.eps .*less than 1; got 2"),
        (change(), ["--images-per-cluster", "3"], UsageError, "add --local cluster"),
        (change(ids=np.full(180, 2**63, np.uint64)), [], InputError, r"ids must be below 2\*\*63"),
        (change(paths=np.zeros(180)), [], InputError, "paths must be strings"),
        (change(), ["--out", "labels.txt"], UsageError, "--out must end in .npz or .csv"),
        (change(), ["--key", "camera=cam"], UsageError, "--key takes NAME=KEY"),
        (change(), ["--key", "ids=cameras", "--key", "ids=ids"], UsageError, "--key ids is given twice"),
        (
            change(paths=np.array([f"{i}\ud800" for i in range(180)])),
            [],
            InputError,
            "can be written: .*d800",
        ),
        (change(paths=np.repeat(["a", "b"], 90)), [], InputError, "names 'a' 90 times"),
        (change(paths=np.array(["a", "b"])), [], InputError, r"paths must have shape \(180,\).* got \(2,\)"),
        (
            change(),
            ["--key", "ids=pid"],
            InputError,
            "has no array 'pid'; it has features, cameras, ids.*--key ids=",
        ),
        (change(), ["--key", "features=emb"], InputError, "has no array 'emb'"),
        (change(cameras=np.array(["a"] * 180, object)), [], InputError, "cameras holds Python objects"),
        (change(cameras=np.zeros(5, int)), [], InputError, r"cameras must have shape \(180,\)"),
        (change(cameras=np.zeros(180)), [], InputError, "cameras must be whole numbers.* dtype float64"),
        (change(cameras=np.r_[-1, np.zeros(179, int)]), [], InputError, "cameras must be at least 0, got -1"),
        (change(local_labels=np.zeros(9, int)), [], InputError, r"local_labels .* got \(9,\)"),
        (change(features=np.zeros((180, 3))), [], InputError, "zero vectors"),
        (lambda a: a, ["--device", "meta"], UsageError, "cannot be used: it holds no numbers"),
        (change(features=np.zeros(180)), [], InputError, r"features must have shape \(n, d\)"),
        (change(features=np.float32(1)), [], InputError, r"features must have shape \(n, d\)"),
        (lambda a: {"features": a["features"]}, ["--local", "cluster"], UsageError, "needs the camera"),
        (
            lambda a: {"features": a["features"]},
            ["-m", "camera-aware"],
            InputError,
            "needs the camera of each",
        ),
        (lambda a: {"ids": a["ids"]}, [], InputError, "has no array 'features'; it has ids"),
        (
            lambda a: {"features": a["features"], "local_labels": a["ids"]},
            [],
            InputError,
            "local labels and no `cameras`",
        ),
    ],
)
def test_bad_input(tmp_path, arrays, alter, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, alter(arrays), *options)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]


def test_a_member_that_is_no_array(tmp_path):
    path = tmp_path / "features.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", b"hello")
    result = CliRunner().invoke(app, [str(path)])
    assert isinstance(result.exception, InputError)
    assert "features is no array" in str(result.exception)


def test_not_an_archive(tmp_path):
    path = tmp_path / "features.npz"
    path.write_bytes(b"PK\x03\x04 not really")
    result = CliRunner().invoke(app, [str(path)])
    assert isinstance(result.exception, InputError)
    assert "icsr embed ... --out FILE.npz" in str(result.exception)
    np.save(tmp_path / "array.npy", np.ones(3))
    result = CliRunner().invoke(app, [str(tmp_path / "array.npy")])
    assert isinstance(result.exception, InputError)
    path.rename(tmp_path / "array.npy")
    for content in (None, b"1.0,2.0", b""):
        if content is not None:
            (tmp_path / "array.npy").write_bytes(content)
        result = CliRunner().invoke(app, [str(tmp_path / "array.npy")])
        assert isinstance(result.exception, InputError)
        assert "array.npy is not an .npy file. numpy.save" in str(result.exception)
    np.save(path.with_name("features.npy"), np.ones((3, 2)))
    result = CliRunner().invoke(app, [str(path.with_name("features.npy")), "--key", "ids=missing.npy"])
    assert isinstance(result.exception, UsageError)
    result = CliRunner().invoke(app, [str(path.with_name("features.npy")), "--key", "features=emb"])
    assert isinstance(result.exception, UsageError)
    assert "holds the features alone" in str(result.exception)
    result = CliRunner().invoke(app, [str(tmp_path / "missing.npz")])
    assert isinstance(result.exception, UsageError)
    result = CliRunner().invoke(app, [str(path), "--local", "guess"])
    assert result.exit_code == 2


def test_tracks_of_the_file(tmp_path, arrays):
    rng = np.random.default_rng(2)
    own = rng.standard_normal((20, 24))[arrays["ids"]] + 0.3 * rng.standard_normal((180, 24))
    tracks = 3 * arrays["ids"] + arrays["cameras"]  # one for each person under each camera
    given = {**arrays, "features": own.astype(np.float32), "tracks": tracks, "times": np.arange(180)}
    out = tmp_path / "labels.npz"
    run(tmp_path, given, "-c", "tracks", "--key", "frames=times", "--refine", "none", "--out", out)
    found = read_labels(out).labels
    assert len(np.unique(found)) == 60
    assert all(len(set(found[tracks == track])) == 1 for track in range(60))
    with pytest.raises(InputError, match="needs the track of each image"):
        run(tmp_path, arrays, "-c", "tracks")


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_arrays_that_lie_on_disk(tmp_path, arrays, kind):
    whole = {**arrays, "features": arrays["features"].astype(kind)}
    for name, array in whole.items():
        np.save(tmp_path / f"{name}.npy", array)
    keys = [f"--key={name}={tmp_path / name}.npy" for name in ("cameras", "ids")]
    more = ["--local", "cluster", "--refine", "discard", "--json"]
    one = run(tmp_path, whole, *more)
    two = CliRunner().invoke(app, [str(tmp_path / "features.npy"), *keys, *more])
    first, second = json.loads(one.stdout), json.loads(two.stdout)
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path, arrays):
    path = tmp_path / "features.npz"
    np.savez_compressed(path, **arrays, junk=np.zeros(1 << 24))
    tracemalloc.start()
    given = read_features(path, renamed([]))
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()
    np.testing.assert_array_equal(given.features, arrays["features"])
    with pytest.raises(InputError, match=r"no array 'more'; it has .*junk"):
        read_features(path, renamed(["paths=more"]))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("features.npy", archive.read("junk.npy"))
    with pytest.raises(InputError, match="features is there twice"):
        read_features(path, renamed([]))


def test_features_on_disk_are_not_copied(tmp_path, arrays):
    """What is of length 1 and float32 is read where it lies, from the file to the kernels."""
    unit = arrays["features"] / np.linalg.norm(arrays["features"], axis=1, keepdims=True)
    np.save(tmp_path / "features.npy", unit)
    given = read_features(tmp_path / "features.npy", renamed([])).features
    assert isinstance(given, np.memmap)
    assert np.shares_memory(unit_rows(check_features(given)), given)


def test_lean_gives_the_same_labels_and_no_figures(tmp_path, arrays):
    found = {}
    for name, more in (("whole", ()), ("lean", ("--lean",))):
        out = tmp_path / f"{name}.npz"
        result = run(tmp_path, arrays, "-c", "dbscan", "--set", "eps=0.45", *more, "--out", out, "--json")
        assert result.exit_code == 0
        found[name] = read_labels(out), json.loads(result.stdout)
    (whole, told), (lean, lean_told) = found["whole"], found["lean"]
    np.testing.assert_array_equal(lean.labels, whole.labels)
    assert "cohesion" not in lean.columns
    assert "silhouette" not in lean_told
    assert lean_told["stored_pairs"] < told["stored_pairs"]


@pytest.mark.parametrize("options", [("-c", "hdbscan"), ("-c", "dbscan", "--set", "eps=auto")])
def test_lean_is_refused_where_every_pair_counts(tmp_path, arrays, options):
    with pytest.raises(UsageError, match="saves nothing here"):
        run(tmp_path, arrays, *options, "--lean")
