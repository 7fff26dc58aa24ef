"""Infomap (Rosvall and Bergstrom, PNAS 2008, arXiv 0707.0609) on the graph of nearest neighbours."""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import as_numpy, check_count, check_number, in_kind, neighbour_arrays
from icsr_cli.errors import MissingExtraError
from icsr_cli.types import NO_CLUSTER, Evidence, IntArray, Neighbours, by_first_appearance


class Options(choices.Options):
    """The graph (``k`` neighbours, the least similarity of an edge), the least module, and the search."""

    k: int = Field(15, ge=2)
    min_similarity: float = Field(0.5, gt=0, le=1)
    min_size: int = Field(5, ge=1)
    trials: int = Field(1, ge=1)
    seed: int = Field(1, ge=1, lt=2**31)

    least_similarity: ClassVar[float] = 1.0

    @property
    def neighbours(self) -> int:
        """As many as the graph has."""
        return self.k

    def faults(self, images: int) -> list[str]:
        """Refuse clusters of more images than there are."""
        return choices.too_large(images, min_size=self.min_size)


def cluster(evidence: Evidence, options: Options) -> IntArray:
    """Cluster the graph of cosine neighbours: int64 (n,), -1 for noise."""
    found: IntArray = as_numpy(infomap(evidence.neighbours(options.k), **options.model_dump(exclude={"k"})))
    return found


def infomap(
    neighbours: Neighbours,
    min_similarity: float = 0.5,
    min_size: int = 5,
    *,
    trials: int = 1,
    seed: int = 1,
) -> Any:
    """Cluster into the modules of a random walk: Rosvall and Bergstrom, PNAS 2008 (arXiv 0707.0609).

    The graph is directed, from each image to its neighbours other than itself, weighted by similarity;
    the modules are those of the two-level map equation. The search is random: the same seed gives the
    same labels with the same version of the library.

    Args:
        neighbours: cosine neighbours, distances 1 - similarity (published: k = 15).
        min_similarity: keep edges of at least this similarity.
        min_size: smaller modules are noise.
        trials: searches, of which the best is taken.
        seed: of the search, at least 1.

    Returns:
        int64 (n,), in the kind of the neighbours: modules 0..m-1 in order of first appearance, -1 for noise.

    Raises:
        InputError: what came is not as said above.
        MissingExtraError: the library is not installed.
    """
    min_similarity = check_number("min_similarity", min_similarity, 1, " and at most 1")
    min_size, trials, seed = (
        check_count(name, value)
        for name, value in (("min_size", min_size), ("trials", trials), ("seed", seed))
    )
    rows, columns, weights = _edges(neighbours, min_similarity)
    try:
        from infomap import Infomap
    except ImportError as error:
        raise MissingExtraError("infomap", "infomap", "Clustering by Infomap", error) from error
    labels = np.full(len(neighbours), NO_CLUSTER, dtype=np.int64)
    if len(rows) == 0:
        return in_kind(labels, neighbours.indices)
    search = Infomap(directed=True, two_level=True, silent=True, seed=seed, num_trials=trials)
    search.add_links(np.column_stack([rows, columns, weights]).astype(np.float64))
    nodes, modules = _run(search)
    labels[nodes] = modules
    return in_kind(by_first_appearance(labels, min_size), neighbours.indices)


def _run(search: Any) -> tuple[IntArray, IntArray]:
    """Give nodes and their modules, by way of a file.

    The library's Python lists come from iterators of SWIG. faiss, loaded after it, puts its own in their
    place, and the process dies.
    """
    result = search.run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "modules.clu"
        # Versions before the one that gives a result write from the search itself.
        (search if result is None else result).write_clu(str(path))
        table = np.loadtxt(path, comments="#", usecols=(0, 1), dtype=np.int64, ndmin=2)
    return table[:, 0], table[:, 1]


def _edges(neighbours: Neighbours, min_similarity: float) -> tuple[Any, Any, Any]:
    indices, distances = neighbour_arrays(neighbours)
    weights = 1 - distances
    kept = (weights >= min_similarity) & (indices != np.arange(len(indices))[:, None])
    return np.nonzero(kept)[0], indices[kept], weights[kept]
