"""As much of torch, by numpy, as the products, copies and transfers of the benchmarks need."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

SEED = 7


class Tensor(np.ndarray[Any, Any]):
    """An array with torch's names for what arrays can do."""

    device = "cpu"

    def to(self, *wanted: Any) -> Any:
        return self.astype(wanted[-1])

    def zero_(self) -> None:
        self.fill(0)

    def copy_(self, other: Any, *, non_blocking: bool = False) -> None:
        del non_blocking
        np.copyto(self, other)

    def remainder_(self, by: float) -> Any:
        self %= by
        return self

    def add_(self, more: float) -> Any:
        self += more
        return self


def made(array: Any) -> Any:
    return np.asarray(array).view(Tensor)


def torch(multiply: Any = np.matmul) -> Any:
    """A torch that multiplies as it is told."""
    random = np.random.default_rng(SEED)
    return SimpleNamespace(
        __spec__=object(), float32=np.dtype(np.float32), float64=np.dtype(np.float64), finfo=np.finfo,
        set_num_threads=lambda number: None, manual_seed=lambda seed: None,
        backends=SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace()),
        zeros=lambda *shape, dtype, **_: made(np.zeros(shape, dtype)),
        randn=lambda *shape, dtype, **_: made(np.asarray(random.standard_normal(shape), dtype)),
        as_tensor=lambda array, device: made(array),
        arange=lambda length, *, dtype, **_: made(np.arange(length, dtype=dtype)),
        matmul=lambda left, right, out: out.copy_(multiply(left, right)),
        add=lambda one, other, *, alpha, out: out.copy_(one + alpha * other),
    )  # fmt: skip


def ten_bits(array: Any) -> Any:
    """Single precision rounded to the ten bits after the point that TF32 keeps."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & ~np.uint32((1 << 13) - 1)).view(np.float32)
