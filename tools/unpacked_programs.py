"""Have programs of the distribution for the unit tests: fetched by apt and unpacked into the cache, not installed.

No root is needed, nothing of the system changes and no service starts. apt reads the machine's own sources, and its
lists and packages lie in a folder of ours, so that neither old lists nor the missing right to renew them matter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from testbed.paths import cache_dir

# Program: its package, and what shows that it runs.
PROGRAMS = {
    "nginx": ("nginx", "-v"),
    "mariadbd": ("mariadb-server", "--version"),
    "postgres": ("postgresql", "--version"),
}
SYSTEM = Path("/")
# What root may do alone and the machine wants done after an update is for its own lists.
APT = """\
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Debug::NoLocking "true";
APT::Sandbox::User "root";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def folder() -> Path:
    """Where the programs lie, as they would below /."""
    return cache_dir() / "programs"


def environment() -> dict[str, str]:
    """In which programs are found and run: those of the system, and after them what is unpacked."""
    libraries = [str(path) for top in ("usr/lib", "lib") for path in sorted(folder().glob(f"{top}/*-linux-gnu*"))]
    return {
        "PATH": f"{_system_path()}:{_places(folder())}",
        **({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}),
    }


def _system_path() -> str:
    return f"{os.environ['PATH']}:{_places(SYSTEM)}"


def _places(top: Path) -> str:
    """Where programs lie below ``top``, also those that the path of an ordinary user lacks."""
    versions = sorted(top.glob("usr/lib/postgresql/*/bin"), reverse=True)
    return ":".join(map(str, [top / "usr/bin", top / "usr/sbin", top / "sbin", *versions]))


def all_run() -> bool:
    """Whether the tests can run every program."""
    known = {**os.environ, **environment()}
    found = {program: shutil.which(program, path=known["PATH"]) for program in PROGRAMS}
    return all(
        path
        and subprocess.run([path, PROGRAMS[program][1]], env=known, capture_output=True, check=False).returncode == 0
        for program, path in found.items()
    )


def fetch() -> None:
    """Unpack what the system lacks of the programs and of what they need."""
    packages = [package for program, (package, _) in PROGRAMS.items() if not shutil.which(program, path=_system_path())]
    with tempfile.TemporaryDirectory(prefix="deep-programs-") as work:
        configuration = Path(work) / "apt.conf"
        configuration.write_text(APT.format(folder=work), encoding="utf-8")
        (Path(work) / "lists" / "partial").mkdir(parents=True)
        (Path(work) / "cache" / "archives" / "partial").mkdir(parents=True)
        apt = ["apt-get", "-qq", "-c", str(configuration)]
        subprocess.run([*apt, "update"], check=True)
        options = ["--yes", "--download-only", "--no-install-recommends"]
        subprocess.run([*apt, "install", *options, *packages], check=True, stdout=subprocess.DEVNULL)
        fresh = folder().with_name(f"{folder().name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for file in sorted((Path(work) / "cache" / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", str(file), str(fresh)], check=True)
        shutil.rmtree(folder(), ignore_errors=True)
        fresh.rename(folder())


def main() -> int:
    """Fetch the programs where one does not run; 1 where one still does not."""
    if all_run():
        return 0
    try:
        fetch()
    except (OSError, subprocess.CalledProcessError) as failed:
        print(f"error: {failed}", file=sys.stderr)
    return 0 if all_run() else 1


if __name__ == "__main__":
    sys.exit(main())
