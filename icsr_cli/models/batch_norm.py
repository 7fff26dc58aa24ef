"""BatchNorm over other images than a batch has in one process: of all processes, of groups, of a camera."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BatchNorm = nn.modules.batchnorm._BatchNorm


def synchronise_batch_norm(network: nn.Module) -> None:
    """Let every BatchNorm of ``network`` take its statistics over all ranks; parameters stay the same.

    On a GPU that is torch's own SyncBatchNorm. It has no kernels for the CPU, and forgets an activation that
    a module holds: there it is ours.
    """
    to_torch: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    for place, module in _batch_norms(network):
        on_gpu = next(iter(module.state_dict().values())).is_cuda
        if on_gpu and not any(module.children()):
            network.set_submodule(place, to_torch(module))
        else:
            module.__class__ = SynchronisedBatchNorm


def _batch_norms(network: nn.Module) -> list[tuple[str, Any]]:
    return [found for found in network.named_modules() if isinstance(found[1], _BatchNorm)]


class _OwnStatistics(_BatchNorm):
    """BatchNorm over (b, c, ...) that takes its statistics otherwise in training.

    A module becomes one by its class: names, parameters and buffers stay, and so does what it does to the
    normalised (timm's BatchNormAct2d holds an activation).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (b, c, ...)."""
        found = self.normalised(input) if self.training else super().forward(input)
        for after in self.children():
            found = after(found)
        return found

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise in training; here as usual."""
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() < 2:
            raise ValueError(f"expected (b, c, ...), got {tuple(input.shape)}")

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, which evaluation normalises by; ``variance`` is unbiased."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class SynchronisedBatchNorm(_OwnStatistics):
    """BatchNorm over (b, c, ...), b being the images of all ranks; every rank has at least one.

    Training normalises by the mean and the biased variance of the whole batch and keeps the unbiased one,
    as ``torch.nn.BatchNorm2d`` does in one process. Parameters, buffers and names are the same.
    """

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (b, c, ...) in training."""
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = _total(values.new_tensor([values.numel() / values.shape[1]]))
        mean = _total(values.sum(over)) / count
        centred = values - mean.view(shape)
        variance = _total(centred.square().sum(over)) / count
        self._keep(mean.detach(), (variance * count / (count - 1)).detach())
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)


class _Total(torch.autograd.Function):
    """The sum over all ranks; so is its gradient, because every rank's loss depends on every rank's part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _total(gradient)


def _total(part: Tensor) -> Tensor:
    total: Tensor = _Total.apply(part)
    return total


def group_batch_norm(network: nn.Module, images: int) -> None:
    """Let every BatchNorm of ``network`` normalise groups of ``images`` in training; parameters stay."""
    for _, module in _batch_norms(network):
        module.__class__, module.images = GroupedBatchNorm, images


class GroupedBatchNorm(_OwnStatistics):
    """BatchNorm over contiguous groups of a batch, as several devices that do not talk to each other do it.

    The published recipes ran on four: each normalised its 16 of 64 images. Running statistics move once per
    step, by the mean over the groups; evaluation is that of ``torch.nn.BatchNorm2d``. A batch that the groups
    do not divide is cut into as many, nearly equal.
    """

    images: int

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (b, c, ...) in training."""
        groups = max(1, round(len(input) / self.images))
        if groups == 1:
            return super().normalised(input)
        whole, longer = divmod(len(input), groups)
        sizes = [whole + (group < longer) for group in range(groups)]
        # Not tensor_split: the way back would fill a batch with zeros for each group, and add them all.
        parts = [
            torch.native_batch_norm(part, self.weight, self.bias, None, None, True, 0.0, self.eps)
            for part in torch.split(input, sizes)
        ]
        found, means, inverses = map(list, zip(*parts, strict=True))
        with torch.no_grad():
            count = input.numel() / input.shape[1] / groups
            variance = (torch.stack(inverses).pow(-2) - self.eps).mean(dim=0) * (count / (count - 1))
            self._keep(torch.stack(means).mean(dim=0), variance)
        return torch.cat(found)


#: In its own statistics a batch of n images counts n / (n + OWN), the running ones the rest.
OWN = 25


@contextmanager
def statistics_of_the_batch(network: nn.Module) -> Iterator[None]:
    """In evaluation, normalise each batch by its own statistics: of a few images drawn to the running ones.

    Every BatchNorm that keeps running statistics takes n / (n + 25) of the mean and the biased variance of
    its n images (b, c, ...), and the rest of the running ones, which are the same afterwards. With batches of
    one domain that is AdaBN (arXiv 1603.04779).
    """
    kept = [
        (module, module.running_mean, module.running_var)
        for _, module in _batch_norms(network)
        if module.running_mean is not None and module.running_var is not None
    ]
    hooks = [module.register_forward_pre_hook(_blend(mean, variance)) for module, mean, variance in kept]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, mean, variance in kept:
            module.running_mean, module.running_var = mean, variance


def _blend(mean: Any, variance: Any) -> Any:
    @torch.no_grad()
    def before(module: nn.Module, given: tuple[Tensor]) -> None:
        values = given[0].to(torch.promote_types(given[0].dtype, torch.float32))
        axes = [axis for axis in range(values.dim()) if axis != 1]
        own_mean = values.mean(axes, keepdim=True)  # var_mean takes five times as long on a CPU
        own_variance = (values - own_mean).square_().mean(axes)
        share = len(values) / (len(values) + OWN)
        module.running_mean = mean.lerp(own_mean.flatten(), share)
        module.running_var = variance.lerp(own_variance, share)

    return before
