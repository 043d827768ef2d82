"""The image of the benchmarks as schedulers run it: not root, nothing to write but /tmp, no capability."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import docker
import pytest

from pipelines.benchmark import backends, job
from pipelines.benchmark.model import Parameters, Plan, Run, Specification
from pipelines.benchmark.workload import WORKLOADS
from testbed import engine, modules
from testbed.artifacts import api, layers
from testbed.paths import repo_root
from tests.artifacts.module_containers import BENCHMARKS, COMPILED_THERE, RESTRICTED, benchmarks, running

pytestmark = pytest.mark.live

TAG = "test-image"
NAME = f"{BENCHMARKS}:{TAG}"
PYTHON = ["/usr/bin/python3", "/opt/deep-benchmark"]
JOB = [*PYTHON, "pipelines.benchmark.job"]
# What makes a workload small enough for a test.
TINY: dict[str, Parameters] = {
    "gemm-fp64": {"size": 32},
    "torch-gemm-fp32": {"size": 32},
}
LARGEST = 250 << 20
TESTS = repo_root() / "tests/unit/test_bench_torch_live.py"
PYTEST = ("_pytest", "iniconfig", "packaging", "pluggy", "py", "pygments", "pytest")


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """The engine with the image, which is taken away again."""
    with benchmarks(TAG):
        yield engine.client()


def said(client: docker.DockerClient, *argv: str, **more: Any) -> str:
    """What a container with the image's root and rights says."""
    text: bytes = client.containers.run(
        NAME, entrypoint=list(argv), command=[], remove=True, network_mode="none", **RESTRICTED, **more
    )
    return text.decode()


def small(name: str) -> Specification:
    return Specification(workloads=(name,), plan=Plan(threads=1, repeats=1, processes=1, parameters={name: TINY[name]}))


@pytest.mark.parametrize("name", [name for name in TINY if name in WORKLOADS["cpu"]])
def test_a_job_measures(client: docker.DockerClient, name: str) -> None:
    specification = small(name).model_dump_json()
    lines = said(client, *JOB, environment={job.VARIABLE: specification}).splitlines()
    documents = [found for found in map(backends.document, lines) if found]
    assert documents[0] == {"note": f"{name}, process 1 of 1"}
    run = Run.model_validate(documents[-1]["run"])
    assert [(one.workload, one.parameters | TINY[name]) for one in run.results] == [(name, run.results[0].parameters)]
    assert run.results[0].summary is not None, run.results[0].reasons
    assert run.machine.container == "docker"
    assert {"numpy", "torch", "blas"} <= run.machine.libraries.keys()


def test_pytorch_and_numpy_work_together(client: docker.DockerClient) -> None:
    code = (
        "import sys; sys.path.insert(0, '/opt/deep-benchmark')\n"
        "import numpy, torch, torchvision\n"
        "assert numpy.__file__.startswith('/opt/deep-benchmark'), numpy.__file__\n"
        "assert torch.from_numpy(numpy.ones(3)).sum() == 3 == torch.ones(3).numpy().sum()\n"
        "network = torchvision.models.resnet18()\n"
        "optimizer = torch.optim.SGD(network.parameters(), 0.1)\n"
        "network(torch.randn(2, 3, 32, 32)).sum().backward(); optimizer.step()\n"
        "print(torch.__version__, torch.backends.mkldnn.is_available(), torch.get_num_threads())\n"
    )
    version, onednn, threads = said(client, PYTHON[0], "-c", code, nano_cpus=10**9).split()
    assert version.startswith("2.6.")
    assert onednn == "True"
    assert int(threads) >= 1


def test_each_workload_of_pytorch_passes_its_tests_there(client: docker.DockerClient, tmp_path: Path) -> None:
    """With the pytest that runs this: its packages are of pure Python."""
    for name in PYTEST:
        source = Path(str(util.find_spec(name).origin))  # type: ignore[union-attr]  # this runs it
        if source.name == "__init__.py":
            shutil.copytree(source.parent, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    shutil.copy(TESTS, tmp_path)
    tmp_path.chmod(0o755)
    words = ["-m", "pytest", "-q", "-c", "/dev/null", "--rootdir=/mnt", "-p", "no:cacheprovider", f"/mnt/{TESTS.name}"]
    found = said(
        client, PYTHON[0], *words, volumes={str(tmp_path): {"bind": "/mnt", "mode": "ro"}},
        environment={"PYTHONPATH": f"{PYTHON[1]}:/mnt"},
    )  # fmt: skip
    passed = re.fullmatch(r"(\d+) passed.*", found.splitlines()[-1])
    assert passed, found
    assert int(passed[1]) > 20


def test_it_is_nobody_and_cannot_write(client: docker.DockerClient) -> None:
    code = (
        "import os, pathlib\n"
        "print(os.getuid(), os.getgid())\n"
        "pathlib.Path('/tmp/x').touch()\n"
        "for place in ('/opt/deep-benchmark/x', '/x'):\n"
        "    try:\n"
        "        pathlib.Path(place).touch()\n"
        "    except OSError:\n"
        "        print('refused')\n"
    )
    assert said(client, PYTHON[0], "-c", code).split() == ["65532", "65532", "refused", "refused"]
    with pytest.raises(docker.errors.APIError, match="no such file"):
        said(client, "/bin/sh", "-c", "true")


def test_as_a_module_it_measures(client: docker.DockerClient) -> None:
    one = modules.module("benchmark")
    health = one.deployment["health"]
    with running(client, one, TAG) as (_, http):
        run = backends.run(backends.load("deepaas", {"url": str(http.base_url), "pause": "0.5"}), small("gemm-fp64"))
        assert run.results[0].summary is not None
        latest = http.post(f"{health}predict/", json=one.deployment["example"]).json()["predictions"]
        assert latest["result"]["run"]["id"] == run.id


def test_nothing_has_to_be_compiled_when_a_process_measures(client: docker.DockerClient) -> None:
    names = ["pipelines.benchmark.worker", "pipelines.benchmark.cpu", "torch", "torch._dynamo", "torchvision"]
    count, *missing = said(client, PYTHON[0], "-c", COMPILED_THERE, PYTHON[1], *names).splitlines()[-1].split()
    assert int(count) > 1000
    assert missing == []


def test_it_is_small_and_shares_a_layer_with_the_modules(client: docker.DockerClient) -> None:
    archive = api.mirror_dir() / "benchmark" / api.version("benchmark") / "benchmark.tar"
    assert archive.stat().st_size < LARGEST
    below = layers.inspect_layer(
        api.mirror_dir() / "python-layer" / api.version("python-layer") / "python-layer.tar.gz"
    )
    assert client.images.get(NAME).attrs["RootFS"]["Layers"][0] == f"sha256:{below.diff_id}"
