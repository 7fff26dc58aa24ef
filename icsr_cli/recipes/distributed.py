"""Several processes that train one network: the ranks which ``torchrun`` or ``--gpus 0,1`` starts.

Every rank walks through the same recipe in the same order; what differs is which images it looks at. All
that must be equal (labels, loss, memory, weights) either comes from the leading rank, rank 0, or is
computed everywhere from the same numbers. The leading rank alone writes the run folder, which lies on a
disk that all ranks read; only where every rank trains cameras of its own does it write what comes of them.
"""

import logging
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from icsr_cli.errors import IcsrError, UsageError
from icsr_cli.features import extract
from icsr_cli.models.batch_norm import synchronise_batch_norm
from icsr_cli.pixels import Stored
from icsr_cli.recipes.interruption import Interruption
from icsr_cli.threads import usable_cpus
from icsr_cli.types import IntArray, Team

T = TypeVar("T")

#: In the cam stage ranks wait for the one with the longest cameras; a dead rank is noticed by the launcher.
_TIMEOUT = timedelta(days=2)
#: For so long the others wait for the leading rank to say what ended them all.
_SPEAKING = timedelta(seconds=30)
#: Named anew by torch 2.14, which warns of the name before.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


@dataclass(frozen=True)
class Ranks(Team):
    """The place of this process among those that train together; one process is rank 0 of 1."""

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def shares(self, n: int) -> list[slice]:
        """Split ``n`` things into one stretch per rank; the first ranks take one more where it is uneven."""
        bounds = [n // self.size * r + min(r, n % self.size) for r in range(self.size + 1)]
        return [slice(first, last) for first, last in pairwise(bounds)]

    def gather(self, own: Tensor, shares: Sequence[slice]) -> Tensor:
        """Join the rows of all ranks: (share, ...) on each to (n, ...) on all; no gradient."""
        if self.size == 1:
            return own
        sizes = [share.stop - share.start for share in shares]
        # Collectives want equal sizes: everyone sends as many rows as the largest share has.
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        everything = own.new_empty((self.size * max(sizes), *own.shape[1:]))
        _all_gather(everything, padded)
        parts = torch.split(everything, max(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def gather_for_loss(self, own: Tensor, shares: Sequence[slice]) -> Tensor:
        """As ``gather``; the rows of this rank carry their gradient.

        Each rank then derives the loss of the whole batch by its own images, and the sum over the ranks is
        the gradient of the loss (``DistributedDataParallel`` takes the mean: scale the loss by ``size``).
        """
        if self.size == 1:
            return own
        everything, share = self.gather(own, shares), shares[self.rank]
        return torch.cat([everything[: share.start], own, everything[share.stop :]])

    def share(self, n: int) -> tuple[int, int]:
        """Give first and end of this rank's stretch of n things."""
        own = self.shares(n)[self.rank]
        return own.start, own.stop

    def join(self, part: T) -> list[T]:
        """Give the values of all ranks, in order; they are pickled."""
        if self.size == 1:
            return [part]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, part)
        return values

    def to_leader(self, part: T) -> list[T]:
        """Give the values of all ranks, in order, to the leading one, and nothing to the others."""
        if self.size == 1:
            return [part]
        values: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(part, values)
        return values or []

    def together(self, work: Callable[[], T]) -> T:
        """Give what comes of what all ranks do alike; what fails on all of them is said by the leading one.

        Raises the IcsrError of ``work`` on the leading rank; the others leave with its exit code.
        """
        try:
            return work()
        except IcsrError as error:
            if self.leads:
                raise
            self.follow(error.exit_code)

    def follow(self, exit_code: int) -> NoReturn:
        """Leave after the leading rank, which says why: a launcher ends all ranks when one has gone."""
        with suppress(RuntimeError):  # the connection breaks when it leaves
            departure = dist.irecv(torch.empty(1), src=0)
            assert departure is not None
            departure.wait(_SPEAKING)
        raise SystemExit(exit_code) from None

    def from_leader(self, make: Callable[[], T]) -> T:
        """Let the leading rank make something and give it to all.

        Raises:
            Exception: what ``make`` raised, on the leading rank; the others leave with its exit code, so
                that it is said once.
        """
        if self.size == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.leads:
            try:
                outcome[0] = make()
            except Exception as error:  # whatever it is, the others wait for an answer
                code = getattr(error, "exit_code", 1)
                dist.broadcast_object_list([None, code], device=torch.device("cpu"))
                raise
        dist.broadcast_object_list(outcome, device=torch.device("cpu"))
        made, exit_code = outcome
        if exit_code is not None:
            self.follow(exit_code)
        result: T = made
        return result

    def wrap(self, network: nn.Module, *, sync_bn: bool) -> nn.Module:
        """Give the network whose gradients are the mean over the ranks; the weights stay shared.

        BatchNorm takes the statistics of the rank's own images, and those of rank 0 are kept, as with the
        published code; with ``sync_bn`` those of the whole batch.
        """
        if self.size == 1:
            return network
        if sync_bn:
            synchronise_batch_norm(network)
        return DistributedDataParallel(network)

    def align_buffers(self, network: nn.Module) -> None:
        """Take the leading rank's running statistics everywhere, before evaluation uses them."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def take_largest_first(self, costs: Sequence[float]) -> list[int]:
        """Give the numbers of this rank's jobs: each goes, largest first, to the rank with least to do."""
        loads = [0.0] * self.size
        mine = []
        for job in sorted(range(len(costs)), key=lambda job: -costs[job]):
            rank = loads.index(min(loads))
            loads[rank] += costs[job]
            if rank == self.rank:
                mine.append(job)
        return mine


ALONE = Ranks()


def join(devices: Sequence[str] = ()) -> tuple[Ranks, str | None]:
    """Join the ranks that the environment names (``RANK``, ``WORLD_SIZE``, ...), if it does.

    ``devices`` are those of this machine's ranks, in order; without them local rank r takes GPU r where
    there is one, else the CPU. Gives the ranks and the device of this one (None: not for us to say).
    Raises UsageError where there is no such device, or there are more ranks than devices.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE, devices[0] if devices else None
    device = device_of(int(os.environ.get("LOCAL_RANK", "0")), devices, torch.cuda.device_count())
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    # Objects and signals go between the CPUs, features and gradients between the GPUs.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    return Ranks(dist.get_rank(), size), device


def device_of(local_rank: int, devices: Sequence[str], n_gpus: int) -> str:
    """Choose the device of a local rank among ``devices``: GPUs, ``cuda`` (all), ``cpu``, or none named.

    Raises UsageError where there is none for it.
    """
    gpus = [f"cuda:{number}" for number in range(n_gpus)]
    named = [] if list(devices) == ["cuda"] else list(devices)
    if named == ["cpu"] or not (devices or gpus):
        return "cpu"
    available = [device for device in named or gpus if device in gpus]
    if local_rank >= len(available):
        raise UsageError(
            f"The process of local rank {local_rank} has no GPU: of {', '.join(devices) or 'all'}, this "
            f"machine has {', '.join(available) or 'none'}. Start as many processes as it has GPUs (torchrun "
            "--nproc-per-node), or take --device cpu."
        )
    return available[local_rank]


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``icsr`` with ``arguments`` as so many ranks on this machine, as ``torchrun`` would.

    Gives the exit code of the rank that failed first, else 0. Signals are passed on to the ranks.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What went wrong is said by the rank itself.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // processes)))
    try:
        with TemporaryDirectory() as scratch:  # else the launcher leaves an empty folder behind
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                monitor_interval=0.2,
                logs_specs=DefaultLogsSpecs(log_dir=scratch),
            )
            elastic_launch(config, sys.executable)("-m", "icsr_cli", *arguments)
    except ChildFailedError as error:
        code: int = error.get_first_failure()[1].exitcode
        return code if code >= 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def leave() -> None:
    """Close what ``join`` opened."""
    if dist.is_initialized():
        dist.destroy_process_group()


class SharedInterruption:
    """Lets all ranks stop at the same step where one of them has caught a signal.

    Every rank asks at every step. The question travels while the next step computes, so the answer comes a
    step later and nobody waits for it.
    """

    def __init__(self, own: Interruption) -> None:
        self._own = own
        self._pending: tuple[dist.Work, Tensor] | None = None

    def check(self) -> None:
        """Raise ``Interrupted`` where any rank had caught a signal a step ago."""
        if self._pending is not None:
            work, signal_number = self._pending
            work.wait()
            if int(signal_number) > 0:
                self._own.signal_number = int(signal_number)
                self._own.check()
        asked = torch.tensor([self._own.signal_number or 0])
        work = dist.all_reduce(asked, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._pending = work, asked


def extract_together(
    network: nn.Module, pixels: Stored, rows: IntArray, ranks: Ranks, *, batch_size: int, **how: Any
) -> Tensor:
    """Embed ``rows`` (n,) as ``features.extract`` does, each rank a stretch: float32 (n, d) on every rank.

    Stretches end where batches end, so that every image stands in the same batch as with one process.
    ``how``: the other options of ``extract``.
    """
    n_batches = -(-len(rows) // batch_size)
    shares = [
        slice(min(share.start * batch_size, len(rows)), min(share.stop * batch_size, len(rows)))
        for share in ranks.shares(n_batches)
    ]
    own = extract(network, pixels, rows[shares[ranks.rank]], batch_size=batch_size, **how)
    return ranks.gather(own, shares)
