"""The module ``benchmark`` behind a real DEEPaaS, and the back end that sends specifications to it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.benchmark import backends
from pipelines.benchmark.model import Plan, Run, Specification
from testbed.errors import DeepError
from tests.services.deepaas_server import packed, serving
from tests.unit.bench_toys import simulated_nvml

MODEL = "/v2/models/benchmark"
TRAIN = f"{MODEL}/train"
SMALL = Plan(
    threads=1, repeats=5, processes=2, seed=1, label="small",
    parameters={"gemm-fp64": {"size": 32}, "gemm-fp32": {"size": 32}},
)  # fmt: skip
SPECIFICATION = Specification(workloads=("gemm-fp64", "gemm-fp32"), plan=SMALL)
# Never done within a test.
ENDLESS = Specification(workloads=("gemm-fp64",), plan=Plan(repeats=10_000_000, processes=1, limit=3000))
ARTIFACT = "deep-benchmark"
# Keys of deephdc/benchmarks_cnn_api 0.5.0.
DEEP = {
    "machine_config", "benchmark", "training", "evaluation", "global_start_time", "global_end_time",
    "global_execution_time_sec",
}  # fmt: skip
PATIENCE = 120


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image's layer has of this repository."""
    return packed(tmp_path_factory.mktemp("benchmark") / "packed", ARTIFACT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("module") / "tmp"


@pytest.fixture(scope="module")
def module(modules: Path, folder: Path) -> Iterator[httpx.Client]:
    with serving(modules, "benchmark", folder, requirements=ARTIFACT) as client:
        yield client


def begun(module: httpx.Client, **arguments: Any) -> str:
    answer = module.post(f"{TRAIN}/", json=arguments)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["uuid"])


def ended(module: httpx.Client, uuid: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while (now := dict(module.get(f"{TRAIN}/{uuid}").json()))["status"] == "running":
        assert time.monotonic() < deadline, now
        time.sleep(0.2)
    return now


def document(specification: Specification) -> dict[str, Any]:
    return specification.model_dump(mode="json")


def refused(module: httpx.Client, **arguments: Any) -> str:
    answer = module.post(f"{TRAIN}/", json=arguments)
    assert answer.status_code == 422, answer.text
    return " ".join(said for one in answer.json().values() for said in _texts(one))


def _texts(said: Any) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    else:
        for one in said.values() if isinstance(said, dict) else said:
            yield from _texts(one)


def measuring(folder: Path) -> list[str]:
    """The processes of measurements that a module with these temporary files has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"pipelines.benchmark.worker" in line or b"benchmark.child" in line:
            found += [line.decode()] if f"TMPDIR={folder}".encode() in variables.split(b"\0") else []
    return found


def wait_for(processes: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(found := measuring(folder)) != processes:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


# --- a measurement -------------------------------------------------------------------------------------------------


def test_before_a_training_there_is_no_result(modules: Path, tmp_path: Path) -> None:
    with serving(modules, "benchmark", tmp_path / "tmp", requirements=ARTIFACT) as fresh:
        said = fresh.post(f"{MODEL}/predict/").json()["predictions"]
    assert said["result"] is None
    assert "a training measures" in said["explanation"]


def test_a_training_measures_and_answers_with_deeps_keys(module: httpx.Client) -> None:
    done = ended(module, begun(module, workloads=["gemm-fp32"], processes=1, repeats=5, threads=1, label="plain"))
    assert done["status"] == "done", done
    result = done["result"]["output"]
    assert result.keys() == DEEP | {"run"}
    assert result["training"]["models"] == ["gemm-fp32"]
    assert result["training"]["gemm-fp32"]["value"] > 0
    assert result["benchmark"]["flavor"] == "synthetic"
    run = Run.model_validate(result["run"])
    assert (run.label, run.processes, run.results[0].threads) == ("plain", 1, 1)
    latest = module.post(f"{MODEL}/predict/").json()["predictions"]
    assert latest == {"result": result, "explanation": None}


def test_the_back_end_brings_the_run_back_and_leaves_no_training(module: httpx.Client, folder: Path) -> None:
    notes: list[str] = []
    backend = backends.load("deepaas", {"url": str(module.base_url), "pause": "0.2"})
    run = backends.run(backend, SPECIFICATION, notes.append)
    assert [one.workload for one in run.results] == ["gemm-fp64", "gemm-fp32"]
    assert run.results[0].parameters == {"size": 32}
    assert (run.seed, run.label, run.processes) == (1, "small", 2)
    assert run.submission is not None
    assert run.submission.backend == "deepaas"
    assert notes[0] == f"deepaas: submitted {run.submission.job}"
    assert notes[1].endswith("running")
    assert module.get(f"{TRAIN}/{run.submission.job}").status_code == 404
    assert measuring(folder) == []


# --- its end -------------------------------------------------------------------------------------------------------


def test_a_cancelled_training_ends_every_process_it_has_started(module: httpx.Client, folder: Path) -> None:
    uuid = begun(module, specification=document(ENDLESS))
    wait_for(2, folder)
    module.delete(f"{TRAIN}/{uuid}")
    wait_for(0, folder)
    assert module.get(f"{TRAIN}/{uuid}").status_code == 404
    # The worker that was killed has a successor.
    assert ended(module, begun(module, specification=document(SPECIFICATION)))["status"] == "done"


def test_who_interrupts_the_back_end_ends_the_training(
    module: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        wait_for(2, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.benchmark.backends.deepaas.time.sleep", interrupted)
    monkeypatch.setattr(time, "sleep", lambda seconds, wait=time.sleep: wait(seconds))
    backend = backends.load("deepaas", {"url": str(module.base_url)})
    with pytest.raises(KeyboardInterrupt):
        backends.run(backend, ENDLESS)
    wait_for(0, folder)


def test_a_measurement_that_takes_too_long_is_ended_by_the_module(module: httpx.Client, folder: Path) -> None:
    done = ended(module, begun(module, specification=document(ENDLESS), timeout=3))
    assert done["status"] == "error"
    assert "nothing after 3 s" in done["message"]
    wait_for(0, folder)


def test_one_at_a_time(module: httpx.Client, folder: Path) -> None:
    first = begun(module, specification=document(ENDLESS))
    wait_for(2, folder)
    backend = backends.load("deepaas", {"url": str(module.base_url), "pause": "0.2"})
    with pytest.raises(DeepError, match=r"the job failed.*another measurement is going on") as told:
        backends.run(backend, SPECIFICATION)
    assert told.value.exit_code == 1
    module.delete(f"{TRAIN}/{first}")
    wait_for(0, folder)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"flavor": "dataset"}, "switched off in 2023 (found 'dataset', needed \"synthetic\")"),
        ({"dataset": "imagenet_mini"}, "switched off in 2023 (found 'imagenet_mini'"),
        ({"evaluation": True}, "nothing is learnt that could be evaluated"),
        ({"batch_size_per_device": 64}, "a batch is part of the workload"),
        ({"optimizer": "sgd"}, "needed nothing"),
        ({"model": "alexnet"}, "no such workload (found alexnet, needed one of"),
        ({"workloads": ["gemm-fp64", "alexnet"]}, "found alexnet"),
        ({"num_gpus": -1}, "greater than or equal to 0"),
        ({"processes": 0}, "greater than or equal to 1"),
        ({"timeout": 0}, "greater than or equal to 1"),
        ({"specification": {"plan": {"repeats": "many"}}}, "plan.repeats: found 'many', needed a whole number"),
        ({"specification": {"workloads": ["vgg16"]}}, "no such workload for the CPU (found: vgg16"),
        ({"specification": "{"}, "not JSON"),
        ({"specification": [1]}, "found a list, needed keys with values"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(
    module: httpx.Client, arguments: dict[str, Any], said: str
) -> None:
    assert said in refused(module, **arguments)


def test_the_only_value_of_an_argument_of_deeps_is_taken(module: httpx.Client) -> None:
    plain = {"flavor": "synthetic", "dataset": "synthetic_data", "evaluation": "false", "num_gpus": 0}
    done = ended(module, begun(module, **plain, specification=document(SPECIFICATION)))
    assert done["status"] == "error"
    assert "a specification says everything (found: num_gpus" in done["message"]
    small = {"model": "gemm-fp32", "processes": 1, "repeats": 5}
    assert ended(module, begun(module, **plain, **small))["status"] == "done"


def test_the_networks_of_deep_go_by_its_names_and_are_the_default(module: httpx.Client) -> None:
    """PyTorch, which this server lacks, is what they need."""
    for arguments in ({"model": "resnet50"}, {}):
        done = ended(module, begun(module, **arguments))
        assert (done["status"], "PyTorch is not installed" in done["message"]) == ("error", True), done
    mixed = ended(module, begun(module, model="vgg16", use_fp16=True))
    assert "processors train in single precision" in mixed["message"]
    named = ended(module, begun(module, model="gemm-fp64", use_fp16=True))
    assert "use_fp16 is about DEEP's networks (found: gemm-fp64" in named["message"]


def test_the_back_end_passes_a_refusal_on(module: httpx.Client) -> None:
    backend = backends.load("deepaas", {"url": str(module.base_url)})
    wrong = SPECIFICATION.model_copy(update={"workloads": ("vgg16",)})
    with pytest.raises(DeepError, match=r"refuses the measurement.*422.*no such workload for the CPU") as told:
        backends.run(backend, wrong)
    assert told.value.exit_code == 1
    other = backends.load("deepaas", {"url": str(module.base_url), "model": "other"})
    with pytest.raises(DeepError, match="HTTP status 404"):
        backends.run(other, SPECIFICATION)


# --- GPUs ----------------------------------------------------------------------------------------------------------


def test_gpus_are_refused_where_there_are_none(module: httpx.Client) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    assert "no GPU to measure (found: NVML finds none" in refused(module, num_gpus=1)
    on_gpu = SPECIFICATION.model_copy(update={"workloads": (), "plan": SMALL.model_copy(update={"device": "gpu"})})
    assert "no GPU to measure" in refused(module, specification=document(on_gpu))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_simulated_gpus_are_refused(modules: Path, tmp_path: Path) -> None:
    simulated_nvml(tmp_path)
    with serving(modules, "benchmark", tmp_path / "tmp", requirements=ARTIFACT, LD_LIBRARY_PATH=str(tmp_path)) as there:
        said = refused(there, num_gpus=1)
    assert "a simulated GPU computes nothing and is not measured (found: NVIDIA Simulated T4" in said
