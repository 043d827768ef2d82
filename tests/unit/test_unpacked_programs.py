"""Programs that the tests have without their being installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import unpacked_programs

# It notes what it is asked for, and leaves a package in the folder that its configuration names.
APT = """\
#!/bin/sh
echo "$*" >>"$CALLS"
[ -z "$FAILS" ] || exit 100
case "$*" in *install*) touch "$(dirname "$3")/cache/archives/nginx.deb" ;; esac
"""
# The package's program needs a library of the package.
DPKG = """\
#!/bin/sh
mkdir -p "$3/usr/sbin" "$3/lib/x86_64-linux-gnu"
touch "$3/lib/x86_64-linux-gnu/needed"
printf '#!/bin/sh\\ntest -e "$LD_LIBRARY_PATH/needed"\\n' >"$3/usr/sbin/nginx"
chmod +x "$3/usr/sbin/nginx"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that lacks the one program; the file has what apt was asked for."""
    for name, text in {"apt-get": APT, "dpkg-deb": DPKG}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name, value in {"PATH": f"{tmp_path}:/bin:/usr/bin", "CALLS": f"{tmp_path}/calls", "FAILS": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(unpacked_programs, "PROGRAMS", {"nginx": ("nginx", "-v")})
    monkeypatch.setattr(unpacked_programs, "SYSTEM", tmp_path / "system")
    return tmp_path / "calls"


def test_a_program_is_fetched_once_and_runs_with_its_libraries(calls: Path) -> None:
    assert "LD_LIBRARY_PATH" not in unpacked_programs.environment()
    assert unpacked_programs.main() == 0
    update, install = calls.read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" --download-only --no-install-recommends nginx")
    found = shutil.which("nginx", path=unpacked_programs.environment()["PATH"])
    assert found == f"{unpacked_programs.folder()}/usr/sbin/nginx"
    assert unpacked_programs.main() == 0
    assert len(calls.read_text().splitlines()) == 2


@pytest.mark.parametrize("place", ["usr/sbin", "usr/lib/postgresql/15/bin"])
def test_a_program_of_the_system_is_used(calls: Path, tmp_path: Path, place: str) -> None:
    program = tmp_path / "system" / place / "nginx"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert unpacked_programs.main() == 0
    assert not calls.exists()


def test_what_no_longer_runs_is_fetched_again(calls: Path) -> None:
    assert unpacked_programs.main() == 0
    (unpacked_programs.folder() / "lib/x86_64-linux-gnu/needed").unlink()
    assert unpacked_programs.main() == 0
    assert len(calls.read_text().splitlines()) == 4


def test_what_cannot_be_fetched_is_told(
    calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAILS", "yes")
    assert unpacked_programs.main() == 1
    assert "exit status 100" in capsys.readouterr().err
    assert not unpacked_programs.folder().exists()
