"""Tensors on the CPU that pass for tensors on a GPU, so that code for a GPU can be tried without one."""

from collections import Counter
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["VirtualGPU", "moved"]

M = TypeVar("M", bound=torch.nn.Module)

_GPU, _CPU = torch.device("cuda"), torch.device("cpu")
# ask for values, so that the host waits
_WAITS = ("item", "tolist", "nonzero", "__int__", "__bool__", "__float__", "__index__")
# take what is on the CPU beside what is not, or do not look at it
_MAY_MIX = ("grad", "backward", "copy_")


def _there(value: Any) -> bool:
    return getattr(value, "_virtual", False)


def _mark(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value._virtual = True  # type: ignore[attr-defined]
    return value


def moved(module: M) -> M:
    """Let a module's parameters and buffers pass for ones on a GPU."""
    for tensor in (*module.parameters(), *module.buffers()):
        _mark(tensor)
    return module


class VirtualGPU(TorchFunctionMode):
    """Inside the block, tensors made with ``device="cuda"`` or moved there say that they are there.

    Operations on tensors of both kinds raise ``RuntimeError``, as does ``numpy()`` of one on the GPU; numbers (tensors
    without dimensions) may be anywhere. ``waits`` counts by name what would make the host wait for the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` on the CPU and mark its results."""
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        here = [tensor for tensor in tensors if not _there(tensor)]
        there = len(here) < len(tensors)
        if func == torch.Tensor.device.__get__:
            return _GPU if there else _CPU
        if name in ("to", "cpu"):
            return self._move(func, args, kwargs)
        if there and name == "numpy":
            raise RuntimeError("numpy() of a tensor on the GPU")
        if there and any(tensor.dim() for tensor in here) and name not in _MAY_MIX:
            raise RuntimeError(f"{name} of tensors on both devices")
        if there and (name in _WAITS or (name == "__getitem__" and any(t.dtype == torch.bool for t in tensors[1:]))):
            self.waits[name] += 1
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = _CPU
        with torch._C.DisableTorchFunction():
            out = func(*args, **kwargs)
        return tree_map(_mark, out) if there else out

    def _move(self, func: Any, args: Any, kwargs: Any) -> Any:
        source, *rest = args
        target = _there(source)
        for place, value in enumerate(rest):
            if isinstance(value, torch.Tensor):
                target = _there(value)
            elif isinstance(value, torch.device | str):
                target, rest[place] = torch.device(value).type == "cuda", _CPU
        if kwargs.get("device") is not None:
            target, kwargs["device"] = torch.device(kwargs["device"]).type == "cuda", _CPU
        target = target and func.__name__ != "cpu"
        if _there(source) != target and not (target and kwargs.get("non_blocking")):
            self.waits["move"] += 1
        with torch._C.DisableTorchFunction():
            out = func(source, *rest, **kwargs)
            if out is source and _there(source) != target:
                out = out.view_as(out)
        return _mark(out) if target else out
