"""Workloads that run everywhere: dense matrix products, and memory copied and combined by all threads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipelines.benchmark import machine, products
from pipelines.benchmark.model import Parameters
from pipelines.benchmark.workload import Resources, Workload
from testbed.errors import DeepError
from testbed.files import human
from testbed.host import machine_name

SEED = 20180301
MIB = 1 << 20
# Below this many bytes an array is no test of memory, whatever the caches are said to be.
SMALLEST_ARRAY = 64 * MIB
WITHOUT_CACHE_SIZE = 256 * MIB
# STREAM's rule (J. D. McCalpin): each array at least four times as large as all last-level caches together.
CACHES = 4
# Doubles of a block that stays in the second-level cache between the two steps of the triad.
BLOCK = 8192


Matrix = NDArray[np.floating[Any]]
Vector = NDArray[np.float64]


class Gemm(Workload):
    """The product of two dense square matrices of normal random numbers by the BLAS below numpy: 2 n^3 FLOP."""

    unit = "GFLOP/s"
    dtype: ClassVar[DTypeLike]
    left: Matrix
    right: Matrix
    product: Matrix

    def __init__(self, size: int = 1024) -> None:
        self.size = size
        self.work = 2.0 * size**3
        self.traffic = 3.0 * np.dtype(self.dtype).itemsize * size**2

    @property
    def parameters(self) -> Parameters:
        """Rows of the matrices."""
        return {"size": self.size}

    @override
    def setup(self, resources: Resources) -> None:
        """The number of threads is the BLAS's, from its environment."""
        generator = np.random.default_rng(SEED)
        self.left, self.right = (generator.standard_normal((self.size, self.size)).astype(self.dtype) for _ in range(2))
        self.product = np.zeros_like(self.left)

    def run(self) -> None:
        """Multiply once."""
        np.matmul(self.left, self.right, out=self.product)

    @override
    def spoil(self) -> None:
        self.product.fill(0)

    def check(self) -> str | None:
        """Freivalds' check, within the rounding of the type."""
        unit = float(np.finfo(self.dtype).eps) / 2
        added, off = products.signs(self.size, SEED + 1), products.rounded(self.size, unit, unit)
        left, right, product = (one.astype(np.float64) for one in (self.left, self.right, self.product))
        return products.wrong(left, right, product, added, off)

    def teardown(self) -> None:
        """Drop the matrices."""
        del self.left, self.right, self.product


class Gemm64(Gemm):
    """In double precision."""

    name = "gemm-fp64"
    dtype = np.float64


class Gemm32(Gemm):
    """In single precision."""

    name = "gemm-fp32"
    dtype = np.float32


class Memory(Workload):
    """Arrays of doubles far larger than the caches, each thread at its own part of them.

    Bytes are counted as STREAM does: what the program reads and writes, not what the processor reads before it writes.
    """

    unit = "GB/s"
    arrays: ClassVar[int]
    parts: list[slice]
    pool: ThreadPoolExecutor
    data: list[Vector]

    def __init__(self, array_bytes: int | None = None) -> None:
        self.asked = array_bytes
        self.length = 0

    @property
    def parameters(self) -> Parameters:
        """Size of each array."""
        return {"array_bytes": 8 * self.length}

    def setup(self, resources: Resources) -> None:
        """Each thread touches its part first, so that the memory is near to it."""
        size = self.asked or array_size(machine.caches())
        require_memory(self.name, size * self.arrays)
        self.length = size // 8
        self.work = 8.0 * self.length * self.arrays
        step = -(-self.length // resources.threads)
        self.parts = [slice(at, min(at + step, self.length)) for at in range(0, self.length, step)]
        self.pool = ThreadPoolExecutor(resources.threads)
        self.data = [np.empty(self.length) for _ in range(self.arrays)]
        self._together(self._fill)

    def run(self) -> None:
        """All parts once."""
        self._together(self._work)

    @override
    def spoil(self) -> None:
        self.data[0].fill(0)

    def teardown(self) -> None:
        """End the threads and drop the arrays."""
        self.pool.shutdown()
        del self.data

    def _together(self, action: Callable[[slice], None]) -> None:
        for _ in self.pool.map(action, self.parts):
            pass

    def _fill(self, part: slice) -> None:
        self.data[0][part] = 0.0
        for at, array in enumerate(self.data[1:], start=1):
            array[part] = np.arange(part.start, part.stop, dtype=float) % 1000 + at

    @abstractmethod
    def _work(self, part: slice) -> None:
        """One part of the work."""

    @abstractmethod
    def _expected(self) -> Vector:
        """What the first array has to hold."""

    def check(self) -> str | None:
        """Every element is what it should be."""
        wrong = int(np.count_nonzero(self.data[0] != self._expected()))
        return f"{wrong} of {self.length} elements are wrong" if wrong else None


class Copy(Memory):
    """a = b, 16 bytes an element."""

    name = "memory-copy"
    arrays = 2

    def _work(self, part: slice) -> None:
        np.copyto(self.data[0][part], self.data[1][part])

    def _expected(self) -> Vector:
        return self.data[1]


class Triad(Memory):
    """a = b + s c, 24 bytes an element."""

    name = "memory-triad"
    arrays = 3
    scalar = 3.0

    def _work(self, part: slice) -> None:
        target, one, other = (array[part] for array in self.data)
        for at in range(0, len(target), BLOCK):  # numpy has no fused triad: both steps while the block is in the cache
            block = slice(at, at + BLOCK)
            np.multiply(other[block], self.scalar, out=target[block])
            np.add(target[block], one[block], out=target[block])

    def _expected(self) -> Vector:
        return self.data[1] + self.scalar * self.data[2]


def require_memory(name: str, needed: int) -> None:
    """Raise ``DeepError`` where this machine has less than twice as many bytes available."""
    found = machine.memory_available()
    if needed > found // 2:
        raise DeepError(
            f"not enough memory for {name}", host=machine_name(), found=f"{human(found)} available",
            needed=f"{human(2 * needed)}, twice the arrays", next_step="measure when the machine has nothing to do",
        )  # fmt: skip


def array_size(caches: int | None) -> int:
    """Bytes of an array on a machine with so many bytes of last-level caches; rounded up to whole MiB."""
    size = max(SMALLEST_ARRAY, CACHES * caches) if caches else WITHOUT_CACHE_SIZE
    return -(-size // MIB) * MIB
