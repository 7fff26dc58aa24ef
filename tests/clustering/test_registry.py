import subprocess
import sys

import numpy as np
import pytest

from icsr_cli.clustering import available, average_linkage, clusterer, dbscan, infomap
from icsr_cli.distances import jaccard_similarity, knn
from icsr_cli.errors import InputError, UsageError
from icsr_cli.types import Neighbours

NEEDED = {"average-linkage": {"n_clusters": 12}}


def features(n=120):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((12, 16))[np.arange(n) % 12] + 0.2 * rng.standard_normal((n, 16))).astype("f")


def test_names_and_functions():
    assert available() == ("average-linkage", "dbscan", "infomap")
    assert clusterer("average-linkage").function is average_linkage
    assert clusterer("average_linkage").function is average_linkage
    assert clusterer("dbscan").function is dbscan
    assert clusterer("infomap").function is infomap
    assert clusterer("infomap").takes == "neighbours"
    assert clusterer("dbscan").options == {"eps": 0.5, "min_samples": 4}


@pytest.mark.parametrize("name", available())
class TestEveryClusterer:
    def given(self, name):
        chosen = clusterer(name)
        if chosen.takes == "similarity":
            return chosen, jaccard_similarity(features(), 10, 3)
        pytest.importorskip(name)
        return chosen, knn(features(), 10, metric="cosine")

    def test_finds_clear_groups(self, name):
        chosen, given = self.given(name)
        labels = chosen(given, **NEEDED.get(name, {}))
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, np.arange(120) % 12)

    def test_same_again(self, name):
        chosen, given = self.given(name)
        options = NEEDED.get(name, {})
        np.testing.assert_array_equal(chosen(given, **options), chosen(given, **options))

    def test_options(self, name):
        chosen = clusterer(name)
        assert chosen.options
        chosen.check({**chosen.options, **NEEDED.get(name, {})})
        option = next(iter(chosen.options))
        with pytest.raises(UsageError, match=rf"{name} has no option '{option}x'.*Did you mean '{option}'"):
            chosen.check({f"{option}x": 1})


def test_no_option_where_one_is_needed():
    with pytest.raises(UsageError, match=r"average-linkage needs one of .* n_clusters or distance_threshold"):
        clusterer("average-linkage").check({})


def test_unknown_name():
    with pytest.raises(UsageError, match=r"no clusterer 'dbscam'; there are .*Did you mean 'dbscan'"):
        clusterer("dbscam")


def test_import_is_light():
    code = (
        "import sys, icsr_cli.clustering as c; c.available();"
        "sys.exit(str([m for m in ('torch', 'numba', 'sklearn', 'infomap') if m in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "[]"


def test_infomap_options():
    pytest.importorskip("infomap")
    neighbours = knn(features(), 10, metric="cosine")
    assert (infomap(neighbours, min_size=11) == -1).all()
    assert (infomap(neighbours, min_similarity=1.0) == -1).all()
    np.testing.assert_array_equal(infomap(neighbours, trials=3, seed=5), np.arange(120) % 12)


@pytest.mark.parametrize("order", ["import torch, faiss, infomap", "import torch, infomap, faiss"])
def test_infomap_beside_faiss(order):
    """Both are made with SWIG and share its table of types: no order of loading may crash."""
    pytest.importorskip("infomap")
    code = (
        f"{order}\nimport numpy as np\nfrom icsr_cli.clustering import infomap\n"
        "from icsr_cli.types import Neighbours\n"
        "rows = np.arange(20).reshape(2, 10).repeat(10, axis=0)\n"
        "print(infomap(Neighbours(rows, np.full((20, 10), 0.1))).tolist())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == str([0] * 10 + [1] * 10), result.stderr


def test_infomap_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(Exception, match=r"pip install 'icsr\[infomap\]'"):
        infomap(knn(features(), 10, metric="cosine"))


@pytest.mark.parametrize(
    ("indices", "distances", "message"),
    [
        ([[0, 1], [1, 2]], [[0, 0.1], [0, 0.1]], "indices from 0 to 1, got 0 to 2"),
        ([[0, 1], [1, 0]], [[0, 0.1], [0, np.nan]], "finite distances"),
        ([[0, 1], [1, 0]], [[0.0], [0.0]], r"one shape \(n, k\), got \(2, 2\) and \(2, 1\)"),
    ],
)
def test_infomap_bad_neighbours(indices, distances, message):
    with pytest.raises(InputError, match=message):
        infomap(Neighbours(np.array(indices), np.array(distances)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_similarity": 0}, "min_similarity must be a number above 0"),
        ({"min_similarity": 1.5}, "min_similarity must be a number above 0 and at most 1, got 1.5"),
        ({"min_size": 0}, "min_size must be a whole number of at least 1, got 0"),
        ({"trials": 0}, "trials must be"),
        ({"seed": 0}, "seed must be"),
    ],
)
def test_infomap_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        infomap(knn(features(), 10, metric="cosine"), **options)
