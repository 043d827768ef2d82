"""Programs of the distribution that releases need: started, and named with their package where they are missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from testbed.errors import CHECK_FAILED, DeepError
from testbed.host import machine_name

# Program: the package of Debian and Ubuntu that brings it.
PACKAGES = {
    "apt-ftparchive": "apt-utils",
    "createrepo_c": "createrepo-c",
    "gpg": "gnupg",
    "gpgv": "gpgv",
    "rpmkeys": "rpm",
    "rpmsign": "rpm",
}


def missing() -> list[DeepError]:
    """An error for each program that is not here."""
    return [_absent(name) for name in PACKAGES if shutil.which(name) is None]


def call(
    program: str, *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run one of ``PACKAGES`` and return it completed; the kernel ends it when this process dies.

    Raises ``DeepError`` where the program is not here and, with ``check``, where it fails.
    """
    if shutil.which(program) is None:
        raise _absent(program)
    # Programs that went on after their parent's death would write into what the next command works on.
    prefix = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    done = subprocess.run(
        [*prefix, program, *map(str, arguments)], input=stdin, cwd=cwd, capture_output=True, check=False
    )
    if check and done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-600:]
        raise DeepError(f"{program} failed with exit status {done.returncode}", found=said, exit_code=CHECK_FAILED)
    return done


def _absent(program: str) -> DeepError:
    return DeepError(
        f"the program {program} is missing", host=machine_name(), needed=f"the package {PACKAGES[program]}",
        next_step=f"apt-get install --no-install-recommends {PACKAGES[program]}",
    )  # fmt: skip
