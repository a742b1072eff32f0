"""A device that is not there, to see on any machine whether code runs on another device than the CPU.

Its tensors say that they lie on `DEVICE`, and are computed on the CPU. As on a GPU, tensors of two devices do not mix, `.numpy()` needs
`.cpu()` first, and what is read back to the CPU waits for the device; here such reads are counted. What it cannot show: speed, memory, and
operations that a GPU lacks or rounds in another way.

    with elsewhere() as reads:
        result = fit(scan, device=DEVICE)
    assert len(reads) < 100
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

try:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as register
except ImportError:  # an older torch
    register = None

DEVICE = "elsewhere:0"
READ = "aten::_local_scalar_dense"  # what float(), int(), bool() and .item() call
MAY_MIX = ("aten::index", "aten::_index_put_impl_", "aten::index_put", "aten::index_put_", "aten::copy_", "aten::_to_copy")  # as in CUDA


class _Backend:
    """What torch asks of a module for the device; nobody else shall find it."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def device_count(self) -> int:
        return 0


if register is not None:
    register(DEVICE.split(":")[0], _Backend())


class Elsewhere(Tensor):
    """A tensor of `DEVICE` whose numbers are those of `inner`, a tensor of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        dense = inner.layout is torch.strided
        strides, offset = (inner.stride(), inner.storage_offset()) if dense else ((inner.shape[1], 1), 0)
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=strides, storage_offset=offset, dtype=inner.dtype, device=torch.device(DEVICE)
        )

    def __init__(self, inner: Tensor):
        self.inner = inner

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner})"

    def tolist(self) -> list:
        _reads.append("tolist")
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


for _name in ("to_dense", "coalesce", "indices", "to_sparse_csr"):  # a tensor elsewhere never says that it is sparse
    setattr(Elsewhere, _name, lambda self, name=_name: Elsewhere(getattr(self.inner, name)()))


class _Mode(TorchDispatchMode):
    """Also sees what makes tensors from nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


_reads: list[str] = []


@contextlib.contextmanager
def elsewhere() -> Iterator[list[str]]:
    """`DEVICE` can be used inside; gives the list of operations that read from it."""
    if register is None:
        pytest.skip("this torch has no devices written in Python")
    _reads.clear()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Mode():
            yield _reads
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def _run(func, args, kwargs):
    """The operation on the CPU, its result where it belongs; RuntimeError where tensors of two devices meet."""
    name = func._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = [isinstance(t, Elsewhere) for t in tensors]
    places = {one for one, t in zip(away, tensors, strict=True) if t.dim() > 0}  # numbers of the CPU go with all
    if len(places) > 1 and name not in MAY_MIX:
        shapes = ", ".join(f"{tuple(t.shape)} {'elsewhere' if one else 'on the CPU'}" for one, t in zip(away, tensors, strict=True))
        raise RuntimeError(f"{name}: expected all tensors on one device, found {shapes}")
    asked = kwargs.get("device")
    goes_away = any(away) if asked is None else torch.device(asked).type == DEVICE.split(":")[0]
    if any(away) and (name == READ or (name == "aten::_to_copy" and not goes_away)):
        _reads.append(name)
    out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not goes_away or name == READ:
        return out
    for argument, given in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return given  # in place: the tensor itself
    return tree_map(lambda t: Elsewhere(t) if isinstance(t, Tensor) else t, out)


def _inner(value):
    if isinstance(value, Elsewhere):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) else value
