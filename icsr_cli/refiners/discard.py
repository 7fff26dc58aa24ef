"""The published refinement: local labels throw wrong images out of the global clusters.

Pseudo Labels Refinement with Intra-camera Similarity for Unsupervised Person Re-identification, ICIP 2023
(arXiv 2304.12634), section 2.2. Needs local labels; without them nothing is thrown out.
"""

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import as_numpy
from icsr_cli.refinement import NodeRule, ThrownOut, information_nodes, node_scores
from icsr_cli.refinement import refine as refine_labels
from icsr_cli.types import Evidence, Labels


class Options(choices.Options):
    """How information nodes are chosen: the rule, the graph of ``k`` neighbours, the least of its edges."""

    node: NodeRule = "highest"
    k: int = Field(15, ge=2)
    min_similarity: float = Field(0.5, ge=-1, le=1)

    needs: ClassVar[frozenset[str]] = frozenset({"cameras", "local"})
    least_similarity: ClassVar[float] = 1.0

    @property
    def neighbours(self) -> int:
        """As many as the graph has."""
        return self.k


def refine(evidence: Evidence, labels: Labels, options: Options) -> Labels:
    """Throw out what its own camera's clustering contradicts; states ``node`` and ``discarded``."""
    return throw_out(evidence, labels, options, "discard")


def throw_out(evidence: Evidence, labels: Labels, options: Options, thrown_out: ThrownOut) -> Labels:
    """Refine ``labels``; see ``icsr_cli.refinement.refine``."""
    if evidence.local is None:
        return labels
    scores = as_numpy(node_scores(evidence.neighbours(options.k), options.min_similarity))
    nodes = information_nodes(scores, labels.labels, options.node)
    refined, discarded = refine_labels(
        labels.labels, evidence.local, evidence.cameras, nodes, thrown_out=thrown_out
    )
    states = labels.marked((nodes, "node"), (discarded, "discarded"))
    figures = {**labels.figures, "discarded": int(discarded.sum()), "nodes": len(nodes)}
    notes = labels.notes
    if len(nodes) == 0:
        notes = (*notes, "No cluster has an information node: nothing is thrown out in this epoch.")
    return replace(labels, labels=refined, states=states, figures=figures, notes=notes)
