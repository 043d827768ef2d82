"""The modules of services/modules in an environment of their own, and DEEPaaS serving one of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbed.artifacts import python_packages
from testbed.artifacts.declaration import PythonBuild, load_all
from testbed.paths import cache_dir, repo_root

MODULES = repo_root() / "services/modules"
DEFAULT = "deep-modules"
# A start imports SciPy twice, on a machine that does other things.
PATIENCE = 90


def environment(name: str = DEFAULT) -> Path:
    """An environment with what an artefact requires, made once for each state of that; whoever is second waits."""
    pins = repo_root() / "artifacts/python" / name / "requirements.txt"
    known = f"{sys.version}{pins.read_text('utf-8')}"
    folder = cache_dir() / "tests" / f"{name}-{hashlib.sha256(known.encode()).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, pins)
            (folder / "complete").touch()
    return folder


def _make(folder: Path, pins: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True, cwd="/")
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin/python",
        "--no-deps",
        "--require-hashes",
    ]
    # Compiled once instead of at every start, of which each has three processes.
    subprocess.run([*install, "--compile-bytecode", "--requirements", pins], check=True, cwd="/")


def installed(folder: Path) -> Path:
    """``folder`` filled with the modules as they are now: packages, and the entry points that DEEPaaS looks for."""
    source, target = folder / "source", folder / "installed"
    shutil.copytree(MODULES, source, ignore=shutil.ignore_patterns("__pycache__"))
    uv = Path(sys.executable).with_name("uv")
    # With the setuptools of the environment: nothing is fetched that has no hash.
    argv: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        environment() / "bin/python",
        "--no-deps",
        "--target",
        target,
    ]
    subprocess.run([*argv, "--no-build-isolation", source], check=True, cwd="/")
    return target


def packed(folder: Path, name: str) -> Path:
    """``folder`` filled with what an artefact takes from this repository, and nothing else of it."""
    build = load_all()[name].sources.build
    assert isinstance(build, PythonBuild)
    folder.mkdir()
    # What it requires is in an environment of its own.
    python_packages.complete(name, build.model_copy(update={"from_source": [], "folder": None}), repo_root(), folder)
    return folder


def variables(modules: Path, folder: Path) -> dict[str, str]:
    """The environment of a program that finds the modules and has its temporary files in ``folder``."""
    folder.mkdir(exist_ok=True)
    return {**os.environ, "PYTHONPATH": str(modules), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def serving(
    modules: Path, model: str, folder: Path, *, requirements: str = DEFAULT, **more: str
) -> Iterator[httpx.Client]:
    """DEEPaaS with one of the ``modules``, as their image starts it; a client that knows where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv: list[str | Path] = [
        environment(requirements) / "bin/python",
        "-m",
        "deep_module.serve",
        "--model-name",
        model,
        "--workers",
        "2",
    ]
    argv += ["--listen-ip", "127.0.0.1", "--listen-port", str(port), "--client-max-size", str(16 << 20)]
    log = folder.with_suffix(".log")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            argv, cwd="/", env={**variables(modules, folder), **more}, stdout=output, stderr=subprocess.STDOUT
        ) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        try:
            _wait(client, f"/v2/models/{model}/", server, log)
            yield client
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(client: httpx.Client, path: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert server.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)
