"""Matrix products, memory, transfers between host and device, and what it costs to launch an operation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, override

from pipelines.benchmark import machine, products
from pipelines.benchmark.cpu import array_size, require_memory
from pipelines.benchmark.model import Device, Parameters
from pipelines.benchmark.pytorch import SEED, Torch, by_device

# Bytes of an array on a GPU: its second-level cache is 50 MB on an H100 and an H200.
GPU_ARRAY = 1 << 30
# Bytes of a transfer on a GPU: 5 ms of PCIe 5.0 x16.
GPU_TRANSFER = 256 << 20
DOUBLE = 8


class Gemm(Torch):
    """The product of two dense square matrices of normal random numbers by cuBLAS or torch's BLAS: 2 n^3 FLOP.

    A call does several of them on a GPU, so that waiting for the device is no part of the figure.
    ``dtype``: of the factors; ``result``: of the product; ``rounding``: units of the last place, relative, by which
    a factor is rounded before it is used.
    """

    unit = "GFLOP/s"
    dtype: ClassVar[str]
    result: ClassVar[str]
    accumulated: ClassVar[str] = "float32"
    rounding: ClassVar[float] = 0.0
    sizes: ClassVar[dict[Device, int]] = {"gpu": 8192, "cpu": 1024}
    often: ClassVar[dict[Device, int]] = {"gpu": 8, "cpu": 1}
    left: Any
    right: Any
    product: Any

    def __init__(self, size: int | None = None, launches: int | None = None) -> None:
        self.asked = size, launches
        self.size = self.launches = 0

    @property
    def parameters(self) -> Parameters:
        """Rows of the matrices, and how many products a call does."""
        return {"size": self.size, "launches": self.launches}

    @override
    def prepare(self) -> None:
        import torch

        self.size = by_device(self.asked[0], self.sizes, self.resources.device)
        self.launches = by_device(self.asked[1], self.often, self.resources.device)
        factor, result = getattr(torch, self.dtype), getattr(torch, self.result)
        self.work = 2.0 * self.size**3 * self.launches
        self.traffic = float((2 * factor.itemsize + result.itemsize) * self.size**2 * self.launches)
        self.left, self.right = (self._random().to(factor) for _ in range(2))
        self.product = torch.zeros(self.size, self.size, dtype=result, device=self.device)

    def _random(self) -> Any:
        import torch

        wide = torch.float64 if self.dtype == "float64" else torch.float32
        return torch.randn(self.size, self.size, dtype=wide, device=self.device)

    def run(self) -> None:
        """Multiply as often as a call does."""
        for _ in range(self.launches):
            self._multiply()
        self.finish()

    def _multiply(self) -> None:
        import torch

        torch.matmul(self.left, self.right, out=self.product)

    @override
    def spoil(self) -> None:
        self.product.zero_()

    def check(self) -> str | None:
        """Freivalds' check, within the rounding of the type."""
        import torch

        added = torch.as_tensor(products.signs(self.size, SEED + 1), device=self.device)
        last, each = (torch.finfo(getattr(torch, name)).eps / 2 for name in (self.result, self.accumulated))
        off = products.rounded(self.size, last, each, self.rounding)
        left, right, product = (one.to(torch.float64) for one in (self.left, self.right, self.product))
        return products.wrong(left, right, product, added, off)

    def teardown(self) -> None:
        """Drop the matrices."""
        del self.left, self.right, self.product


class Gemm64(Gemm):
    """In double precision: smaller, since most GPUs are slow at it."""

    name = "gemm-fp64"
    dtype = result = accumulated = "float64"
    sizes: ClassVar[dict[Device, int]] = {"gpu": 4096, "cpu": 1024}
    often: ClassVar[dict[Device, int]] = {"gpu": 1, "cpu": 1}


class Gemm32(Gemm):
    """In single precision, without TF32: one takes long enough."""

    name = "gemm-fp32"
    dtype = result = "float32"
    often: ClassVar[dict[Device, int]] = {"gpu": 1, "cpu": 1}


class GemmTf32(Gemm):
    """Of numbers in single precision, of which tensor cores use the first 10 bits."""

    name = "gemm-tf32"
    dtype = result = "float32"
    tf32 = True
    capability = 8, 0
    rounding = 2.0**-10


class GemmBf16(Gemm):
    """In bfloat16, added up in single precision."""

    name = "gemm-bf16"
    dtype = result = "bfloat16"


class GemmFp16(Gemm):
    """In half precision, added up in single precision."""

    name = "gemm-fp16"
    dtype = result = "float16"


class GemmFp8(Gemm):
    """In float8_e4m3fn with scales of one, added up without the fast way, to bfloat16; the right one by columns."""

    name = "gemm-fp8"
    dtype = "float8_e4m3fn"
    result = "bfloat16"
    capability = 8, 9
    sizes: ClassVar[dict[Device, int]] = {"gpu": 16384, "cpu": 1024}
    # The tensor cores of Hopper keep 14 bits while they add up; what is added to single precision are sums of 128.
    rounding = 2.0**-10
    scale: Any

    @override
    def prepare(self) -> None:
        import torch

        super().prepare()
        self.right = self.right.t()
        self.scale = torch.ones((), dtype=torch.float32, device=self.device)

    @override
    def _multiply(self) -> None:
        import torch

        torch._scaled_mm(
            self.left, self.right, scale_a=self.scale, scale_b=self.scale, out_dtype=torch.bfloat16,
            use_fast_accum=False, out=self.product,
        )  # fmt: skip


class HostGemm64(Gemm64):
    """The same by a processor, beside numpy's."""

    name = "torch-gemm-fp64"


class HostGemm32(Gemm32):
    """The same by a processor, beside numpy's."""

    name = "torch-gemm-fp32"


class Memory(Torch):
    """Arrays of doubles far larger than the caches; bytes are counted as STREAM does, read and written."""

    unit = "GB/s"
    arrays: ClassVar[int]
    often: ClassVar[dict[Device, int]] = {"gpu": 16, "cpu": 1}
    data: list[Any]

    def __init__(self, array_bytes: int | None = None, launches: int | None = None) -> None:
        self.asked = array_bytes, launches
        self.length = self.launches = 0

    @property
    def parameters(self) -> Parameters:
        """Size of each array, and how often a call goes through them."""
        return {"array_bytes": DOUBLE * self.length, "launches": self.launches}

    @override
    def prepare(self) -> None:
        import torch

        size = self.asked[0] or (GPU_ARRAY if self.resources.device == "gpu" else array_size(machine.caches()))
        self.launches = by_device(self.asked[1], self.often, self.resources.device)
        self.require(size * (self.arrays + 2))  # the check makes another one, and says of each element what it is
        self.length = size // DOUBLE
        self.work = float(DOUBLE * self.length * self.arrays * self.launches)
        self.data = [torch.zeros(self.length, dtype=torch.float64, device=self.device)]
        self.data += [pattern(self.length, at, self.device) for at in range(1, self.arrays)]

    def run(self) -> None:
        """As often as a call does."""
        for _ in range(self.launches):
            self._work()
        self.finish()

    @override
    def spoil(self) -> None:
        self.data[0].zero_()

    @abstractmethod
    def _work(self) -> None:
        """Once through the arrays."""

    @abstractmethod
    def _expected(self) -> Any:
        """What the first array has to hold."""

    def check(self) -> str | None:
        """Every element is what it should be."""
        return unequal(self.data[0], self._expected())

    def teardown(self) -> None:
        """Drop the arrays."""
        del self.data


class Copy(Memory):
    """a = b, 16 bytes an element."""

    name = "memory-copy"
    arrays = 2

    def _work(self) -> None:
        self.data[0].copy_(self.data[1])

    def _expected(self) -> Any:
        return self.data[1]


class Triad(Memory):
    """a = b + s c in one kernel, 24 bytes an element."""

    name = "memory-triad"
    arrays = 3
    scalar = 3.0

    def _work(self) -> None:
        import torch

        torch.add(self.data[1], self.data[2], alpha=self.scalar, out=self.data[0])

    def _expected(self) -> Any:
        return (self.scalar * self.data[2]).add_(self.data[1])


class HostCopy(Copy):
    """The same by a processor, beside numpy's."""

    name = "torch-memory-copy"


class HostTriad(Triad):
    """The same by a processor, beside numpy's."""

    name = "torch-memory-triad"


class Transfer(Torch):
    """From one buffer to another one, each byte counted once; the host's is pinned where the other is a GPU's."""

    unit = "GB/s"
    host_bound = True
    often: ClassVar[dict[Device, int]] = {"gpu": 4, "cpu": 1}
    to_host: ClassVar[bool] = False
    source: Any
    target: Any

    def __init__(self, transfer_bytes: int | None = None, launches: int | None = None) -> None:
        self.asked = transfer_bytes, launches
        self.length = self.launches = 0

    @property
    def parameters(self) -> Parameters:
        """Size of a transfer, and how many a call does."""
        return {"transfer_bytes": DOUBLE * self.length, "launches": self.launches}

    @override
    def prepare(self) -> None:
        import torch

        gpu = self.resources.device == "gpu"
        size = self.asked[0] or (GPU_TRANSFER if gpu else array_size(machine.caches()))
        self.launches = by_device(self.asked[1], self.often, self.resources.device)
        self.require(3 * size)
        require_memory(self.name, 3 * size)
        self.length = size // DOUBLE
        self.work = float(DOUBLE * self.length * self.launches)
        host = torch.zeros(self.length, dtype=torch.float64, pin_memory=gpu)
        device = torch.zeros(self.length, dtype=torch.float64, device=self.device)
        self.source, self.target = (device, host) if self.to_host else (host, device)
        self.source.copy_(pattern(self.length, 1, self.source.device))

    def run(self) -> None:
        """As often as a call does."""
        for _ in range(self.launches):
            self.target.copy_(self.source, non_blocking=True)
        self.finish()

    @override
    def spoil(self) -> None:
        self.target.zero_()

    def check(self) -> str | None:
        """Every element has arrived."""
        return unequal(self.target, pattern(self.length, 1, self.target.device))

    def teardown(self) -> None:
        """Drop the buffers."""
        del self.source, self.target


class HostToDevice(Transfer):
    """To the GPU."""

    name = "host-to-device"


class DeviceToHost(Transfer):
    """From the GPU."""

    name = "device-to-host"
    to_host = True


class HostToHost(Transfer):
    """What there is of it without a GPU: from one buffer of the host to another one."""

    name = "host-to-host"


class Launch(Torch):
    """One addition after the other, each to a single number: what an operation costs beside its arithmetic."""

    name = "kernel-launch"
    unit = "us"
    host_bound = True
    counter: Any

    def __init__(self, launches: int = 1000) -> None:
        self.launches, self.calls = launches, 0
        self.work = float(launches)

    @property
    def parameters(self) -> Parameters:
        """How many are launched before the device is waited for."""
        return {"launches": self.launches}

    @override
    def prepare(self) -> None:
        import torch

        self.counter = torch.zeros(1, dtype=torch.int64, device=self.device)

    def run(self) -> None:
        """Launch them, and wait for the last one."""
        for _ in range(self.launches):
            self.counter.add_(1)
        self.finish()
        self.calls += 1

    def check(self) -> str | None:
        """Each launch has added one."""
        found, wanted = int(self.counter), self.calls * self.launches
        return None if found == wanted > 0 else f"the number is wrong: {found} after {wanted} launches"

    def teardown(self) -> None:
        """Drop the number."""
        del self.counter


class Operation(Launch):
    """The same without a GPU, where nothing is launched: what torch itself costs."""

    name = "operation-call"


def pattern(length: int, start: int, device: Any) -> Any:
    """Numbers by which an element that is not where it should be is seen, and which add up without rounding."""
    import torch

    return torch.arange(length, dtype=torch.float64, device=device).remainder_(1000).add_(start)


def unequal(found: Any, wanted: Any) -> str | None:
    """How many elements differ."""
    wrong = int((found != wanted).sum())
    return f"{wrong} of {len(found)} elements are wrong" if wrong else None
