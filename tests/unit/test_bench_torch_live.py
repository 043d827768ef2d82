"""Each workload of PyTorch at a tiny size on a processor: it runs, its check passes, and notices what is spoiled.

It runs where torch is, such as Debian 13 with python3-torch, python3-torchvision and python3-pytest, in the repository
and with it in PYTHONPATH:
``python3 -m pytest -c /dev/null --rootdir=. --noconftest -p no:cacheprovider tests/unit/test_bench_torch_live.py``
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.benchmark import worker, workload
from pipelines.benchmark.model import Parameters
from pipelines.benchmark.pytorch import arrays, collective, networks
from pipelines.benchmark.workload import Resources
from testbed.errors import DeepError

torch = pytest.importorskip("torch", reason="needs torch: runs in the image of benchmarks, by tests/artifacts")

# By the beginning of a name: parameters, and the work of a call with them.
TINY: dict[str, tuple[Parameters, float]] = {
    "torch-gemm": ({"size": 64, "launches": 2}, 2 * 2 * 64**3),
    "gemm": ({"size": 64, "launches": 2}, 2 * 2 * 64**3),
    "torch-memory-copy": ({"array_bytes": 1 << 16, "launches": 2}, 2 * 2 << 16),
    "torch-memory-triad": ({"array_bytes": 1 << 16, "launches": 2}, 2 * 3 << 16),
    "host-to-host": ({"transfer_bytes": 1 << 16, "launches": 2}, 2 << 16),
    "host-to-device": ({"transfer_bytes": 1 << 16, "launches": 2}, 2 << 16),
    "device-to-host": ({"transfer_bytes": 1 << 16, "launches": 2}, 2 << 16),
    "operation-call": ({"launches": 10}, 10),
    "all-reduce": ({"data_bytes": 1 << 16, "launches": 2}, 2 << 16),
    "transformer": ({"batch": 2, "length": 8, "layers": 1, "width": 64}, 2),
    "inception3": ({"batch": 2, "image": 80}, 2),
    "vgg16": ({"batch": 2, "image": 32}, 2),
    "": ({"batch": 2, "image": 64}, 2),
}
# Of processors, and beside them what else a processor can compute: mixed precision, other types, the other direction.
CLASSES: dict[str, type[Any]] = {
    name: workload.load(place) for name, place in workload.WORKLOADS["cpu"].items() if workload.PYTORCH in place
} | {one.name: one for one in (arrays.GemmFp16, arrays.HostToDevice, arrays.DeviceToHost)}
CLASSES |= {
    name: one
    for name, one in networks._all().items()
    if name in ("resnet50-train-amp", "resnet50-inference-amp", "transformer-train-amp")
}
STEPS = 6


@pytest.fixture(scope="module", params=CLASSES)
def done(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A workload after a few calls."""
    if request.param.split("-")[0] in ("googlenet", "inception3", "resnet50", "vgg16"):
        pytest.importorskip("torchvision")
    parameters, _ = tiny(request.param)
    one = CLASSES[request.param](**parameters)
    one.setup(Resources(1))
    assert "wrong" in (one.check() or ""), "nothing has been done yet"
    for _ in range(STEPS):
        one.run()
    yield one
    one.teardown()


def tiny(name: str) -> tuple[Parameters, float]:
    return next(found for start, found in TINY.items() if name.startswith(start))


def test_it_does_its_work_and_notices_when_it_is_spoiled(done: Any) -> None:
    parameters, work = tiny(done.name)
    assert done.check() is None
    assert done.check() is None, "a check changes nothing"
    assert done.work == work
    assert parameters.items() <= done.parameters.items()
    assert done.versions()["torch"] == torch.__version__
    if isinstance(done, arrays.Gemm):
        assert done.traffic == 2 * 3 * done.product.element_size() * 64**2
    for spoil in SPOILT[next(kind for kind in SPOILT if isinstance(done, kind))]:
        restore = spoil(done)
        assert "wrong" in (done.check() or ""), spoil.__name__
        restore()
    assert done.check() is None


def element(tensor: Any, at: Any, value: float) -> Callable[[], None]:
    """Spoil one element; returns what mends it."""
    before = tensor[at].clone()
    tensor[at] = value

    def mend() -> None:
        tensor[at] = before

    return mend


def attribute(one: Any, name: str, value: Any) -> Callable[[], None]:
    before = getattr(one, name)
    setattr(one, name, value)
    return lambda: setattr(one, name, before)


def product_off(one: Any) -> Callable[[], None]:
    return element(one.product, (3, 5), float(one.product[3, 5]) + 8)  # as large as elements usually are


def product_no_number(one: Any) -> Callable[[], None]:
    return element(one.product, (3, 5), math.nan)


def array_off(one: Any) -> Callable[[], None]:
    return element(one.data[0], 7, float(one.data[0][7]) + 1)


def array_no_number(one: Any) -> Callable[[], None]:
    return element(one.data[0], 7, math.nan)


def transfer_off(one: Any) -> Callable[[], None]:
    return element(one.target, -1, 0.0)


def launch_lost(one: Any) -> Callable[[], None]:
    return element(one.counter, 0, float(one.counter) - 1)


def sum_off(one: Any) -> Callable[[], None]:
    return element(one.member.data, 1024, float(one.member.data[1024]) + 1)


def something_between(one: Any) -> Callable[[], None]:
    return element(one.member.data, 1, 1.0)


def sum_of_another_off(one: Any) -> Callable[[], None]:
    """As if the other process had another result."""
    return attribute(one, "_answers", lambda: [1])


def loss_no_number(one: Any) -> Callable[[], None]:
    return attribute(one, "losses", [*one.losses[:-1], torch.tensor(math.nan)])


def loss_rising(one: Any) -> Callable[[], None]:
    return attribute(one, "losses", [torch.tensor(value) for value in (1.0, 1.1, 1.2, 1.3)])


def nothing_learnt(one: Any) -> Callable[[], None]:
    return attribute(one, "before", one.sums())


def one_parameter_left_out(one: Any) -> Callable[[], None]:
    return attribute(one, "before", [*one.before[:-1], one.sums()[-1]])


def output_no_number(one: Any) -> Callable[[], None]:
    return attribute(one, "output", torch.full_like(one.output, math.inf))


def output_off(one: Any) -> Callable[[], None]:
    return attribute(one, "output", one.output * 1.1)


def output_of_something_else(one: Any) -> Callable[[], None]:
    return attribute(one, "output", one.said(one.others))


def output_of_nothing(one: Any) -> Callable[[], None]:
    """A network that says the same of everything."""
    return attribute(one, "others", one.inputs)


SPOILT: dict[type[Any], tuple[Callable[[Any], Callable[[], None]], ...]] = {
    arrays.Gemm: (product_off, product_no_number),
    arrays.Memory: (array_off, array_no_number),
    arrays.Transfer: (transfer_off,),
    arrays.Launch: (launch_lost,),
    collective.AllReduce: (sum_off, something_between, sum_of_another_off),
    networks.Training: (loss_no_number, loss_rising, nothing_learnt, one_parameter_left_out),
    networks.VisionInference: (output_no_number, output_off, output_of_something_else, output_of_nothing),
}


def test_float8_is_multiplied_as_cublas_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor has no such product: a stand-in looks at what it is given and computes it otherwise."""

    def instead(
        left: Any, right: Any, *, scale_a: Any, scale_b: Any, out_dtype: Any, use_fast_accum: bool, out: Any
    ) -> None:
        assert (left.stride(), right.stride()) == ((64, 1), (1, 64))  # by rows, by columns
        assert (left.dtype, right.dtype, scale_a.dtype) == (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float32)
        assert (out_dtype, use_fast_accum) == (torch.bfloat16, False)
        out.copy_(left.float() @ right.float() * scale_a * scale_b)

    monkeypatch.setattr(arrays.GemmFp8, "lacking", classmethod(lambda *_: None))
    monkeypatch.setattr(torch, "_scaled_mm", instead)
    one = arrays.GemmFp8(64, 1)
    one.setup(Resources(1))
    one.run()
    assert one.check() is None
    assert one.traffic == 4 * 64**2
    product_off(one)
    assert "wrong" in (one.check() or "")


@pytest.mark.parametrize("name", ["gemm-tf32", "gemm-fp8", "resnet50-train-tf32"])
def test_what_a_processor_cannot_compute_is_refused(name: str) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(DeepError, match=f"not the arithmetic of {name} .*found: the CPU"):
        workload.load(workload.WORKLOADS["gpu"][name])().setup(Resources(1))


def test_a_process_that_is_no_more_ends_the_sums() -> None:
    one = collective.AllReduce(1 << 12)
    one.setup(Resources(1))
    process, _ = one.others[0]
    process.kill()
    process.join(60)
    try:
        with pytest.raises(DeepError, match=r"do not find together .*ended with -9"):
            one._answers()
    finally:
        one.teardown()


def test_memory_that_torch_does_not_get_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "require_memory", lambda *_: None)
    monkeypatch.setattr(arrays.Transfer, "require", lambda *_: None)
    job = {
        "place": workload.WORKLOADS["cpu"]["host-to-host"], "parameters": {"transfer_bytes": 1 << 60}, "threads": 1,
        "device": "cpu", "gpus": 1, "repeats": 1, "limit": 9,
    }  # fmt: skip
    error = worker.work(job)["error"]
    assert error["message"] == "the memory of the device is too small for host-to-host"
    assert error["needed"].endswith("more")
