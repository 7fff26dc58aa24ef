"""A GPU on paper: tensors that say they are on ``cuda:0``, on a machine that has none.

Their numbers lie on the host, so that everything runs and gives what the CPU gives, to the bit. What would
fail on a GPU fails here: operations that mix devices (torch's ``FakeTensorMode`` judges), numpy on a tensor
of the device, pinning of what is not on the host. What would wait for the device is noted, with the line of
``icsr_cli`` that asked for it. (``FakeTensorMode`` alone cannot serve: the planning on the host needs its
numbers, and torch's backward pass asks the driver for the GPU of a fake tensor.)
"""

from __future__ import annotations

import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

import icsr_cli

GPU = torch.device("cuda", 0)
PACKAGE = str(Path(icsr_cli.__file__).parent)
aten = torch.ops.aten


class Wait(NamedTuple):
    """Something that waits for the device: where it was asked for, and by which operation."""

    file: str
    function: str
    line: int
    operation: str


class PaperTensor(Tensor):
    """Says that it is on ``cuda:0``; its numbers are those of ``inner``, on the host."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PaperTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=inner.device,
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self, **_: Any) -> str:
        return f"PaperTensor({tuple(self.shape)}, {self.dtype})"

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func}: a tensor of the paper GPU outside of it")


class PaperGenerator(torch.Generator):
    """A generator that says it is on ``cuda:0``, and draws the numbers of the CPU's."""

    device = GPU  # type: ignore[assignment]


def is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def host(value: Any) -> Any:
    """The numbers of everything in ``value`` on the host."""
    return tree_map_only(PaperTensor, lambda tensor: tensor.inner, value)


class _Operations(TorchDispatchMode):
    """Every operation of every tensor comes by here."""

    def __init__(self, gpu: PaperGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        papers = [tensor for tensor in tensors if isinstance(tensor, PaperTensor)]
        if not papers:
            return func(*args, **kwargs)
        self.gpu.judge(func, args, kwargs, tensors)
        if func is aten.copy_.default and not isinstance(args[0], PaperTensor):
            return func(args[0], args[1].inner)
        known = {id(paper.inner): paper for paper in papers}
        out = tree_map_only(
            Tensor,
            lambda tensor: known.get(id(tensor)) if id(tensor) in known else PaperTensor(tensor),
            func(*host(args), **host(kwargs)),
        )
        if func is aten._local_scalar_dense.default or not func._schema.returns:
            return out
        return return_and_correct_aliasing(func, args, kwargs, out)


class PaperGpu(TorchFunctionMode):
    """While it is entered, ``device="cuda"`` works. ``waits``: everything that would have waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self._operations = _Operations(self)

    def __enter__(self) -> PaperGpu:
        # What a module holds becomes another tensor: torch would put its parts into the old one.
        self._overwrote = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._operations.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._operations.__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(self._overwrote)

    def note(self, operation: Any) -> None:
        """Note that this operation waits, and who asked for it."""
        for frame in reversed(traceback.extract_stack()):
            if frame.filename.startswith(PACKAGE):
                file = frame.filename[len(PACKAGE) + 1 :]
                self.waits.append(Wait(file, frame.name, frame.lineno or 0, str(operation)))
                return
        self.waits.append(Wait("", "", 0, str(operation)))

    def upload(self, tensor: Tensor) -> PaperTensor:
        """Put a tensor there, at no cost."""
        return PaperTensor(tensor.detach().clone())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args, kwargs)
        own = args[0] if args and isinstance(args[0], PaperTensor) else None
        if func is Tensor.pin_memory:
            if own is not None:
                raise RuntimeError("cannot pin 'torch.cuda' tensors: only dense CPU tensors can be pinned")
            return args[0]
        if own is not None and func in (Tensor.numpy, Tensor.__array__):
            return own.__array__()
        if own is not None and func is Tensor.tolist:
            self.note("tolist")
            return own.inner.tolist()
        if own is not None and func is Tensor.new_tensor:
            kwargs.setdefault("device", GPU)
            func, args = torch.tensor, args[1:]
        if not is_gpu(kwargs.get("device")):
            return func(*args, **kwargs)
        # Something is made on the device.
        del kwargs["device"]
        if func in (torch.tensor, torch.as_tensor):
            if isinstance(args[0], PaperTensor):
                return args[0]
            self.note(func.__name__)
            return PaperTensor(func(*args, **kwargs))
        made = func(*args, **kwargs)
        return made if isinstance(made, PaperTensor) else self._placed(made)

    @staticmethod
    def _placed(tensor: Tensor) -> PaperTensor:
        return PaperTensor(tensor.detach()).requires_grad_(tensor.requires_grad)

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """``to``, ``cpu`` and ``cuda``."""
        tensor, *rest = args
        if func is not Tensor.to:
            rest, kwargs = ["cpu" if func is Tensor.cpu else "cuda"], {}
        if rest and isinstance(rest[0], Tensor):
            rest = [rest[0].device, rest[0].dtype, *rest[1:]]
        copy = kwargs.pop("copy", False)
        device, dtype, quick, layout = torch._C._nn._parse_to(*rest, **kwargs)
        there = isinstance(tensor, PaperTensor)
        how = {
            key: value for key, value in (("dtype", dtype), ("memory_format", layout)) if value is not None
        }
        if device is not None and is_gpu(device) != there:
            if there or not quick:
                self.note(f"to {device}")
            if tensor.requires_grad and torch.is_grad_enabled():
                raise AssertionError("a gradient would flow from one device to the other")
            if there:
                return tensor.inner.clone().to(**how) if how else tensor.inner.clone()
            return self._placed(tensor.to(copy=True, **how))
        return tensor.to(copy=copy, **how) if how or copy else tensor

    def judge(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        """Raise where devices are mixed; note what waits."""
        if func is aten.copy_.default:
            target, source = args[:2]
            quick = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            both = isinstance(target, PaperTensor), isinstance(source, PaperTensor)
            # A number of the host goes along with the call.
            if both == (False, True) or (both == (True, False) and not quick and source.dim() > 0):
                self.note(func)
            return
        if func is aten.scatter.src and torch.__version__ < (2, 13):
            # The backward pass of topk fills zeros that C++ made where it takes a paper tensor to be: here.
            return
        if any(not isinstance(tensor, PaperTensor) and tensor.dim() > 0 for tensor in tensors):
            _judge_devices(func, args, kwargs)
            self.note(f"{func} with indices on the host")
        if _waits(func, args, kwargs):
            self.note(func)


def _judge_devices(func: Any, args: Any, kwargs: Any) -> None:
    """Let torch say whether it takes tensors of these devices; raises its error."""
    with FakeTensorMode(allow_non_fake_inputs=True):

        def fake(tensor: Tensor) -> Tensor:
            device = "cuda" if isinstance(tensor, PaperTensor) else "cpu"
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

        func(*tree_map_only(Tensor, fake, args), **tree_map_only(Tensor, fake, kwargs))


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the host has to know numbers of the device before it can go on."""
    if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        one = func is not aten.index.Tensor and len(masks) == 1 and args[2].numel() == 1
        return bool(masks) and not one  # one number under a mask is masked_fill
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def patch_torch(patch: Any) -> None:
    """Let ``torch.autocast("cuda")`` cast what is on the paper GPU, and inference go without its shortcuts.

    (An inference tensor has no version, and no tensor that wraps another can be one.)
    """

    class Autocast(torch.autocast):
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    patch.setattr(torch, "autocast", Autocast)
    patch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext())
