"""As ``discard``, but what is thrown out makes clusters of its own, one for each local cluster."""

from icsr_cli.refiners import discard
from icsr_cli.types import Evidence, Labels


class Options(discard.Options):
    """Those of ``discard``."""


def refine(evidence: Evidence, labels: Labels, options: Options) -> Labels:
    """Split off what its own camera's clustering contradicts; states ``node`` and ``discarded``."""
    return discard.throw_out(evidence, labels, options, "split")
