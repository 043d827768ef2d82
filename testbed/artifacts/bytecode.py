"""Bytecode beside packages of an image's layer, made by the very Python that runs them there.

A container cannot keep what it compiles, so that without this it does so at each start. Compiled is what the program
imports: all of it would be nearly twice as much, for modules that nobody uses.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from testbed.artifacts import compilers
from testbed.artifacts.declaration import Bytecode
from testbed.run import Children

# Prints the files below a folder (the first argument) that importing modules (the others) takes.
IMPORTED = """import importlib, sys

folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    importlib.import_module(name)
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
print(*sorted(file for file in files if file.startswith(f"{folder}/") and file.endswith(".py")), sep="\\n")
"""
LIST = ("/usr/bin/python3", "-BSs", "-Wignore", "-c", IMPORTED)
# What is compiled depends on nothing but its source: neither on times nor on an order that differs between runs.
COMPILE = ("/usr/bin/python3", "-BSs", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", "-i")
# All that programs in there get; a thread for each core is of no use.
ENVIRONMENT = ("PYTHONHASHSEED=0", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1")

# Without it, packages import less than they will in a container.
SEMAPHORES = "dev/shm"
# What decides the result besides the packages and the layer.
INPUTS = (*LIST, *COMPILE, *ENVIRONMENT, SEMAPHORES)


def add(wanted: Bytecode, layer: Path, packages: Path, folder: str, log: Path, children: Children) -> None:
    """Compile in ``packages`` what is imported, as it is at ``/folder`` of an image that begins with ``layer``.

    Works beside ``packages``. Raises ``DeepError`` with the log where a module cannot be imported.
    """
    for stale in list(packages.rglob("__pycache__")):
        shutil.rmtree(stale)
    root = packages.with_name("bytecode-root")
    with tarfile.open(layer) as archive:
        archive.extractall(root, filter="tar")  # nosec B202 # made here; it has absolute links
    (root / SEMAPHORES).mkdir(parents=True, exist_ok=True)
    place = root / folder
    place.parent.mkdir(parents=True, exist_ok=True)
    packages.rename(place)
    enter = _entering(root)
    files: list[str] = []
    compilers.compile_with(
        [*enter, *LIST, f"/{folder}", *wanted.imports], log=log, children=children, on_line=files.append
    )
    (root / "files.txt").write_text(
        "\n".join(file for file in files if file.startswith(f"/{folder}/")), encoding="utf-8"
    )
    compilers.compile_with([*enter, *COMPILE, "/files.txt"], log=log, children=children)
    for made in place.rglob("__pycache__"):
        made.chmod(0o755)
    place.rename(packages)
    shutil.rmtree(root)


def _entering(root: Path) -> list[str]:
    """The command that runs another one below ``root``, for whoever is not root in a user namespace."""
    chroot = shutil.which("chroot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "chroot"
    return [
        "env",
        "-i",
        *ENVIRONMENT,
        *([] if os.geteuid() == 0 else ["unshare", "--map-root-user"]),
        chroot,
        str(root),
    ]
