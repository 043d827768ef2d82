"""Builds: reproducible, only when needed, and whole again after any interruption."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import files
from testbed.artifacts import builders, compilers, engine
from testbed.artifacts.builders import Context
from testbed.artifacts.declaration import Declaration, load_all
from testbed.artifacts.engine import Outcome, ensure
from testbed.artifacts.progress import Silent
from testbed.artifacts.store import Store
from testbed.errors import DeepError
from testbed.paths import repo_root

SOURCE = """#include <stdio.h>
int main(void) { return puts("one") < 0; }
"""
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler on this host")


def declare(**changes: object) -> Declaration:
    build = {"kind": "c", "directory": "src", "outputs": {"tool": {"sources": ["tool.c"]}}, "disk": "1MiB"}
    data = {
        "name": "tool", "version": "1.0", "licence": "MIT", "homepage": "https://example.org", "summary": "A tool",
        "files": [{"name": "tool"}], "sources": {"build": build}, **changes,
    }  # fmt: skip
    return Declaration.model_validate(data)


def image(file: str = "tool/tool") -> Declaration:
    build = {
        "kind": "image", "disk": "1MiB",
        "images": {"box": {"tag": "v{tool}", "layers": [{"files": {"/tool": file}}], "entrypoint": ["/tool"]}},
    }  # fmt: skip
    return declare(name="box", files=[{"name": "box.tar"}], sources={"build": build})


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "tool.c").write_text(SOURCE, encoding="utf-8")
    return Context(Store(tmp_path / "store"), {"tool": declare(), "box": image()}, Silent(), tmp_path)


def one(ctx: Context, name: str = "tool", *, rehash: bool = False) -> Outcome:
    return ensure([name], ctx, rehash=rehash)[-1]


def spoil(path: Path, damage: str) -> None:
    match damage:
        case "truncate":
            os.truncate(path, 10)
        case "remove":
            path.unlink()
        case _:
            path.write_bytes(b"x" * path.stat().st_size)


def digest(ctx: Context, name: str = "tool", file: str = "tool") -> str:
    return ctx.store.file(name, file).name


def test_first_run_builds_and_the_second_does_nothing(ctx: Context) -> None:
    first, second = one(ctx), one(ctx)
    assert (first.changed, first.reason) == (True, "not in the store")
    assert (second.changed, second.reason, second.log) == (False, "unchanged", None)
    program = ctx.store.file("tool", "tool")
    copy = ctx.root / "run"
    shutil.copy(program, copy)
    copy.chmod(0o755)
    assert subprocess.run([copy], capture_output=True, text=True, check=True).stdout == "one\n"


def test_changed_source_is_built_again(ctx: Context) -> None:
    one(ctx)
    before = digest(ctx)
    (ctx.root / "src" / "tool.c").write_text(SOURCE.replace("one", "two"), encoding="utf-8")
    outcome = one(ctx)
    assert (outcome.changed, outcome.reason) == (True, "its inputs changed")
    assert digest(ctx) != before


def test_changed_compiler_is_noticed(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    one(ctx)
    monkeypatch.setattr(compilers, "gcc_version", lambda: "gcc 99")
    assert one(ctx).reason == "its inputs changed"


def test_new_version_is_built_beside_the_old_one(ctx: Context) -> None:
    one(ctx)
    newer = Context(ctx.store, {"tool": declare(version="1.1")}, Silent(), ctx.root)
    assert one(newer).reason == "version 1.0 is stored, 1.1 is declared"
    assert sorted(path.name for path in (ctx.store.mirror / "tool").iterdir()) == ["1.0", "1.1"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "overwrite"])
def test_damaged_object_is_built_again(ctx: Context, damage: str) -> None:
    one(ctx)
    path = ctx.store.file("tool", "tool")
    good = path.read_bytes()
    spoil(path, damage)
    outcome = one(ctx)
    assert outcome.changed
    assert "tool is damaged" in outcome.reason
    assert ctx.store.file("tool", "tool").read_bytes() == good


def test_silent_damage_is_repaired_by_rehash(ctx: Context) -> None:
    one(ctx)
    path = ctx.store.file("tool", "tool")
    facts = path.stat()
    path.write_bytes(b"x" * facts.st_size)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert not one(ctx).changed
    assert one(ctx, rehash=True).changed
    assert files.sha256_of(path) == path.name


def test_lost_record_leads_to_the_same_content(ctx: Context) -> None:
    one(ctx)
    before = digest(ctx)
    (ctx.store.root / "records" / "tool.json").unlink()
    assert one(ctx).changed
    assert digest(ctx) == before


def test_lost_view_is_repaired_without_a_build(ctx: Context) -> None:
    one(ctx)
    shutil.rmtree(ctx.store.mirror)
    outcome = one(ctx)
    assert (outcome.changed, outcome.reason) == (True, "links of the mirror were repaired")
    assert (ctx.store.mirror / "tool" / "1.0" / "SHA256SUMS").is_file()


def test_image_follows_what_it_is_made_of(ctx: Context) -> None:
    assert [outcome.name for outcome in ensure(["box"], ctx)] == ["tool", "box"]
    before = digest(ctx, "box", "box.tar")
    assert not one(ctx, "box").changed
    (ctx.root / "src" / "tool.c").write_text(SOURCE.replace("one", "two"), encoding="utf-8")
    assert one(ctx, "box").reason == "its inputs changed"
    assert digest(ctx, "box", "box.tar") != before


def test_failing_compiler_is_quoted_with_its_log(ctx: Context) -> None:
    (ctx.root / "src" / "tool.c").write_text("int main(void) { return nonsense; }\n", encoding="utf-8")
    with pytest.raises(DeepError, match="nonsense") as failure:
        one(ctx)
    assert failure.value.exit_code == 1
    assert str(ctx.store.log_path("tool")) in (failure.value.next_step or "")
    assert ctx.store.record("tool") is None
    assert not list((ctx.store.root / "work").iterdir())


def test_failed_build_keeps_what_was_there(ctx: Context) -> None:
    one(ctx)
    before = digest(ctx)
    (ctx.root / "src" / "tool.c").write_text("broken", encoding="utf-8")
    with pytest.raises(DeepError):
        one(ctx)
    assert digest(ctx) == before


def test_too_little_space_is_refused_before_the_build(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _path: 1000)
    monkeypatch.setattr(builders, "make", lambda *_: pytest.fail("the build was started"))
    with pytest.raises(DeepError, match=r"found: 1000 bytes .*needed: 1048576 bytes \(1.0 MiB\)"):
        one(ctx)


def test_disk_that_becomes_full_is_explained(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(DeepError, match="became full while writing artefact tool"):
        one(ctx)
    monkeypatch.undo()
    assert one(ctx).changed, "the next run finishes the work"
    assert not ctx.store.check(ctx.store.records()[0], rehash=True)


def test_file_that_the_build_did_not_make_is_named(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "make", lambda _item, _source, _ctx, work: {"tool": work / "tool"})
    with pytest.raises(DeepError, match="the build made no tool"):
        one(ctx)


def test_absent_compiler_is_explained(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    compilers.gcc.cache_clear()
    with pytest.raises(DeepError, match="no C compiler"):
        one(ctx)
    compilers.gcc.cache_clear()


def test_two_clean_builds_of_a_real_artefact_are_identical(tmp_path: Path) -> None:
    hashes = []
    for number in ("first", "second"):
        store = Store(tmp_path / number / "store")
        # Another place and another time must not show in the result.
        root = tmp_path / number / ("checkout" * (1 if number == "first" else 5))
        shutil.copytree(repo_root() / "artifacts", root / "artifacts", symlinks=True)
        ensure(["gpu-simulator", "pause"], Context(store, load_all(), Silent(), root))
        hashes.append(
            {(record.name, name): entry.sha256 for record in store.records() for name, entry in record.files.items()}
        )
        time.sleep(1.1)
    assert len(hashes[0]) == 4
    assert hashes[0] == hashes[1]


KILLED = """
import sys, time
from pathlib import Path
from testbed.artifacts import builders, engine
from testbed.artifacts.declaration import load_all
from testbed.artifacts.progress import Silent
from testbed.artifacts.store import Store
ctx = builders.Context(Store(Path(sys.argv[1])), load_all(), Silent(), Path(sys.argv[2]))
print("started", flush=True)
engine.ensure(["gpu-simulator", "pause"], ctx)
"""


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_build_killed_at_any_moment_is_finished_by_the_next_run(tmp_path: Path, after: float) -> None:
    root = tmp_path / "store"
    command = [sys.executable, "-c", KILLED, str(root), str(repo_root())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
    store = Store(root)
    for record in store.records():
        assert not store.check(record, rehash=True), "what is recorded is complete"
    ensure(["gpu-simulator", "pause"], Context(store, load_all(), Silent(), repo_root()))
    for record in store.records():
        assert not store.check(record, rehash=True) + store.check_view(record)
    assert [record.name for record in store.records()] == ["gpu-simulator", "pause"]
    assert not list((root / "work").iterdir())


def test_compiler_dies_with_the_killed_process(tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv on this host")
    program = (
        "import sys; from pathlib import Path; from testbed.artifacts.compilers import stream\n"
        "stream(['sh', '-c', 'echo $$ > ' + sys.argv[1] + '; exec sleep 60'], log=Path(sys.argv[1] + '.log'))"
    )
    note = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", program, str(note)]) as process:
        while not (note.exists() and note.read_text(encoding="utf-8").strip()):
            time.sleep(0.02)
        process.kill()
    child = Path("/proc") / note.read_text(encoding="utf-8").strip()
    deadline = time.monotonic() + 5
    while child.exists() and "Z" not in child.joinpath("stat").read_text(encoding="utf-8").split()[2]:
        assert time.monotonic() < deadline, "the compiler survived"
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_really_full_disk_is_explained_and_survived(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    program = (
        "import sys; from testbed.errors import DeepError; import testbed.files as files\n"
        "files.require_space = lambda *_: None\n"
        "try:\n    exec(sys.argv.pop())\n"
        "except DeepError as error:\n    print(error); raise SystemExit(error.exit_code)"
    )
    # The mount lives in a namespace of its own and ends with the process.
    script = f'mount -t tmpfs -o size=400k tmpfs {store} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", program, store, repo_root(), KILLED],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mount" in done.stderr:
        pytest.skip(f"no mount here: {done.stderr.strip()}")
    assert done.returncode in (1, 2), done.stderr
    assert "No space left on device" in done.stdout or "became full" in done.stdout
    assert "Traceback" not in done.stderr


def test_source_falls_back_to_the_one_that_is_declared() -> None:
    declarations = load_all()
    assert builders.source_of(declarations["kubernetes"], builders.UPSTREAM) == "upstream"
    assert builders.source_of(declarations["gpu-simulator"], builders.UPSTREAM) == "build"


def test_artefact_that_only_packages_have_cannot_be_stored(ctx: Context) -> None:
    only = declare(files=[], sources={"package": {"Debian": ["tool"]}})
    with pytest.raises(DeepError, match="the store does not hold tool"):
        engine.ensure(["tool"], Context(ctx.store, {"tool": only}, Silent(), ctx.root))


def test_go_output_names_skip_a_version_element() -> None:
    build = load_all()["etcd"].sources.build
    assert build is not None
    assert build.kind == "go"
    assert {name: build.output_name(name) for name in build.packages} == {"etcd": "server", "etcdctl": "etcdctl"}


MAVEN = """#!/bin/sh
for word; do case $word in -Dmaven.repo.local=*) folder=${word#*=}/org/example/tool/1.0 ;; esac; done
mkdir -p "$folder"
printf '%s' "$CONTENT" >"$folder/tool-1.0.zip"
"""


def maven(ctx: Context, monkeypatch: pytest.MonkeyPatch, content: str) -> Outcome:
    """Build an artefact with a Maven that has ``content`` in its repository."""
    program = ctx.root / "mvn"
    program.write_text(MAVEN, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(compilers, "mvn", lambda: str(program))
    monkeypatch.setenv("CONTENT", content)
    hashes = {"tool.zip": hashlib.sha256(b"right").hexdigest()}
    build = {"kind": "maven", "artifact": "org.example:tool:{version}:zip", "sha256": hashes, "disk": "1MiB"}
    item = declare(files=[{"name": "tool.zip"}], sources={"build": build})
    (outcome,) = ensure(["tool"], Context(ctx.store, {"tool": item}, Silent(), ctx.root))
    return outcome


def test_a_file_of_a_maven_repository_is_fetched(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert maven(ctx, monkeypatch, "right").changed
    assert ctx.store.file("tool", "tool.zip").read_text(encoding="utf-8") == "right"
    assert not maven(ctx, monkeypatch, "right").changed


def test_another_file_in_the_maven_repository_is_refused(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeepError, match="another file") as refused:
        maven(ctx, monkeypatch, "wrong")
    assert refused.value.needed == f"sha256 {hashlib.sha256(b'right').hexdigest()}"
    assert ctx.store.record("tool") is None


def test_no_maven_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    compilers.mvn.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeepError, match="no Maven"):
        compilers.mvn()
