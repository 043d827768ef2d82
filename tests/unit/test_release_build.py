"""What surrounds the builders: archives without a trace of their making, the candidate."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from typer.testing import CliRunner

from pipelines.release import archives, build, candidate, manifest, packages, reproduce, signing, source
from pipelines.release.openpgp import Keyring
from testbed import files
from testbed.artifacts import api, declaration
from testbed.artifacts import bundle as api_bundle
from testbed.cli.release import app
from testbed.errors import DeepError
from tests.unit import release_repository
from tests.unit.release_repository import TIME, commit, git, maker, toys
from tests.unit.test_release_manifest import MINE, artefacts

KEYS: build.PublicKeys = {"deb": "k", "rpm": "k"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return release_repository.repository(tmp_path / "repository")


@pytest.fixture
def makers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Builders of a moment in place of the real ones."""
    quick: dict[str, Any] = {"wheel": maker()}
    monkeypatch.setattr(packages, "MAKERS", quick)
    return quick


# Archives


def packed(path: Path, names: list[str], when: int, contents: dict[str, bytes]) -> Path:
    """A tar.gz with these members in this order, as somebody made it at some time."""
    with gzip.GzipFile(path, "wb", mtime=when) as out, tarfile.open(mode="w", fileobj=out) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.mtime, member.uid, member.uname, member.mode = when, when % 1000, f"user{when}", 0o664
            if name == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "b"
            member.size = len(contents.get(name, b""))
            archive.addfile(member, io.BytesIO(contents.get(name, b"")))
    return path


def test_an_archive_made_anew_tells_nothing_of_its_making(tmp_path: Path) -> None:
    contents = {"b": b"text", "a": b"\0" * 9000}
    first = packed(tmp_path / "1.tar.gz", ["b", "a", "link"], 1000, contents)
    second = packed(tmp_path / "2.tar.gz", ["link", "a", "b"], 2000, contents)
    assert first.read_bytes() != second.read_bytes()
    for path in (first, second):
        archives.repack(path, TIME)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[3:8] == b"\0" + TIME.to_bytes(4, "little")  # no name, and not the time of now
    with tarfile.open(first) as archive:
        members = archive.getmembers()
        assert [(one.name, one.mtime, one.uid, one.uname, one.mode) for one in members] == [
            ("a", TIME, 0, "", 0o644), ("b", TIME, 0, "", 0o644), ("link", TIME, 0, "", 0o777),
        ]  # fmt: skip
        assert members[2].linkname == "b"
        extracted = archive.extractfile("a")
        assert extracted is not None
        assert extracted.read() == contents["a"]


def collection(path: Path, names: list[str], when: int) -> Path:
    """A collection as ansible-galaxy makes it, which lists files in the order of the disk."""
    listing = json.dumps({"files": [{"name": name} for name in [".", *names]], "format": 1}, indent=True).encode()
    digest = hashlib.sha256(listing).hexdigest()
    said = {"collection_info": {"name": "toy"}, "file_manifest_file": {"chksum_sha256": digest}}
    contents = {"MANIFEST.json": json.dumps(said, indent=True).encode(), "FILES.json": listing, "b": b"text"}
    return packed(path, ["MANIFEST.json", "FILES.json", *names], when, contents)


def test_the_order_of_the_disk_does_not_show_in_a_collection(tmp_path: Path) -> None:
    first = collection(tmp_path / "1.tar.gz", ["b", "a"], 1000)
    second = collection(tmp_path / "2.tar.gz", ["a", "b"], 2000)
    for path in (first, second):
        archives.repack_collection(path, TIME)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        assert archive.getnames() == ["MANIFEST.json", "FILES.json", "a", "b"]
        listing, said = (archive.extractfile(name) for name in ("FILES.json", "MANIFEST.json"))
        assert listing is not None
        assert said is not None
        digest = hashlib.sha256(listing.read()).hexdigest()
        assert json.load(said)["file_manifest_file"]["chksum_sha256"] == digest


def test_a_folder_gives_the_same_archive_however_it_lies_on_the_disk(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "one").write_text("text")
        (tmp_path / name / "link").symlink_to("inner/one")
    (tmp_path / "1" / "two").hardlink_to(tmp_path / "1" / "inner" / "one")
    (tmp_path / "2" / "two").write_text("text")
    (tmp_path / "2" / "two").chmod(0o600)
    for name in ("1", "2"):
        archives.tar(tmp_path / name, tmp_path / f"{name}.tar", TIME)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


# The candidate


def cut(root: Path, output: Path, **options: Any) -> build.Built:
    return build.cut(root, toys(), output, **options)


def test_a_candidate_is_whole_and_lists_what_it_has(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    built = cut(root, tmp_path / "out")
    read = candidate.read(tmp_path / "out")
    assert read == built.candidate
    assert (read.commit, read.source_date_epoch) == (git(root, "rev-parse", "HEAD").strip(), TIME)
    assert [(one.kind, one.file) for one in read.artefacts] == [
        ("wheel", "toy-0.1.0rc1.whl"), ("notes", "toy-0.1-0.1.0rc1-notes.md"),
        ("notes", "toy-0.1-0.1.0rc1-notes.html"), ("notes", "toy-0.1-0.1.0rc1-announcement.txt"),
    ]  # fmt: skip
    argv = ["sha256sum", "--check", "--strict", "../SHA256SUMS"]
    checked = subprocess.run(argv, cwd=tmp_path / "out" / "files", check=True, capture_output=True)
    assert checked.stdout.count(b"OK") == 6  # and candidate.json, inputs.json
    assert {path.name for path in tmp_path.iterdir()} == {"repository", "out"}  # nothing is left beside it


def test_a_candidate_says_for_which_platforms_it_is_and_which_products_others_made(
    root: Path, tmp_path: Path, makers: dict[str, Any]
) -> None:
    theirs = {
        "name": "theirs",
        "title": "Theirs",
        "third_party": True,
        "artefacts": [{"kind": "wheel", "file": "b.whl"}],
    }
    build.cut(root, toys(products=[*MINE["products"], theirs]), tmp_path / "out")
    made = candidate.read(tmp_path / "out")
    assert made.platforms == {"debian12": "deb"}
    said = {one.product: one.third_party for one in made.artefacts}
    assert said == {"toy": False, "theirs": True, "toy-0.1": False}


def test_it_is_kept_until_something_changes(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    out = tmp_path / "out"
    assert not cut(root, out).kept
    first = (out / "files").stat().st_ino
    assert cut(root, out).kept
    assert (out / "files").stat().st_ino == first
    (out / "files" / "toy-0.1.0rc1.whl").write_text("changed by somebody")
    assert not cut(root, out).kept
    candidate.read(out)
    (out / "inputs.json").write_text("{}")
    assert not cut(root, out).kept
    (root / "README.md").write_text("# Later\n")
    commit(root)
    assert not cut(root, out).kept
    assert cut(root, out).kept


def test_a_build_that_fails_leaves_the_candidate_as_it_was(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    out = tmp_path / "out"
    cut(root, out)
    before = candidate.read(out)
    (root / "README.md").write_text("# Later\n")
    commit(root)

    def broken(*_: Any) -> None:
        raise DeepError("the builder fails")

    makers["wheel"] = broken
    with pytest.raises(DeepError, match="the builder fails"):
        cut(root, out)
    assert candidate.read(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"repository", "out", ".out.lock"}
    (tmp_path / ".out.new-killed").mkdir()  # of a process that had no time to clean up
    makers["wheel"] = maker()
    cut(root, out)
    assert {path.name for path in tmp_path.iterdir()} == {"repository", "out"}


def test_what_is_not_a_candidate_is_not_replaced(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    (tmp_path / "out").mkdir()
    cut(root, tmp_path / "out")  # an empty folder will do
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(DeepError, match="holds something else"):
            cut(root, tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_two_commands_do_not_build_the_same(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    with (
        files.exclusive(tmp_path / ".out.lock", "x", "x"),
        pytest.raises(DeepError, match=f"found: process {os.getpid()}"),
    ):
        cut(root, tmp_path / "out")


def test_what_is_declared_is_what_is_built(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    def other(shop: packages.Workshop, *_: Any) -> None:
        (shop.files / "other.whl").write_text("x")

    makers["wheel"] = other
    with pytest.raises(DeepError, match=r"the build makes no toy-0\.1\.0rc1\.whl \(found: other\.whl"):
        cut(root, tmp_path / "out")

    def more(shop: packages.Workshop, *arguments: Any) -> None:
        other(shop)
        maker()(shop, *arguments)

    makers["wheel"] = more
    with pytest.raises(DeepError, match=r"does not declare \(found: other\.whl"):
        cut(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_needs_more_is_left_out_and_said(root: Path) -> None:
    mine = release_repository.candidate_of("deep-testbed-0.1")
    found = source.Commit(root, "c" * 40, TIME)
    left = build.omitted(build.inputs(found, mine))
    assert left[f"deephdc-release_{mine.package}+debian12_all.deb"] == "--repository-url and --key"
    assert left[f"deep-testbed-{mine.version}-bundle.tar"] == "--with bundle"
    whole = build.inputs(found, mine, url="https://a.example/x/", public_keys=KEYS, extras=["images", "bundle"])
    assert (whole.repository_url, build.omitted(whole)) == ("https://a.example/x", {})


@pytest.mark.parametrize(
    "url",
    ["http://a.example/x", "ftp://a.example", "https://", "https://u:p@a.example", "https://a.example/\nx", "a b"],
)
def test_hosts_are_given_no_address_where_somebody_could_answer_for_it(root: Path, url: str) -> None:
    found = source.Commit(root, "c" * 40, TIME)
    with pytest.raises(DeepError, match="hosts would not be safe"):
        build.inputs(found, toys(), url=url, public_keys=KEYS)
    build.inputs(found, toys(), url="http://127.0.0.1:8080/x", public_keys=KEYS)
    with pytest.raises(DeepError, match="without its key"):
        build.inputs(found, toys(), url="https://a.example")


def test_what_is_published_already_is_not_built(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeepError, match="deep-1 is published already"):
        build.cut(root, manifest.find("deep-1"))
    monkeypatch.setattr(build, "BUILDERS", ("no-such-package",))
    with pytest.raises(DeepError, match=r"found: no no-such-package"):
        build.cut(root, toys())


def test_provenance_is_signed_and_about_these_files(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    built = cut(root, tmp_path / "out", signing_key=key)
    envelope = json.loads((tmp_path / "out" / candidate.PROVENANCE).read_text())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    public: Any = load_ssh_public_key(key.with_suffix(".pub").read_bytes())
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    said = json.loads(payload)
    assert said["predicateType"] == signing.SLSA
    assert {one["name"]: one["digest"]["sha256"] for one in said["subject"]} == {
        one.file: one.sha256 for one in built.candidate.artefacts
    }
    definition = said["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [{"name": "source", "digest": {"gitCommit": built.candidate.commit}}]
    assert definition["internalParameters"]["tools"]["nfpm"]
    with pytest.raises(DeepError, match="no such key"):
        cut(root, tmp_path / "other", signing_key=tmp_path / "missing")
    (tmp_path / "gnupg").mkdir(mode=0o700)
    with pytest.raises(DeepError, match="there is no such key"):
        cut(root, tmp_path / "other", key="F" * 40, keyring=Keyring(tmp_path / "gnupg"))
    with pytest.raises(DeepError, match=r"nothing would bring hosts .*needed: --repository-url too"):
        cut(root, tmp_path / "other", repository_keys=["F" * 40], keyring=Keyring(tmp_path / "gnupg"))
    assert not (tmp_path / "other").exists()


def test_the_command_says_what_it_built(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    path = tmp_path / "toy-0.1.yml"
    path.write_text(json.dumps(MINE))
    words = ["build", str(path), "--root", str(root)]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    data = json.loads(done.stdout)
    assert (data["ok"], data["kept"], data["signed"]) == (True, False, [])
    assert data["folder"] == str(root / "dist" / "0.1.0rc1")
    assert data["artefacts"][0]["file"] == "toy-0.1.0rc1.whl"
    text = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "kept, nothing has changed" in text
    assert "--key and --signing-key sign" in text


# From the store


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has one artefact, which takes the place of the modules."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    data = {
        "name": "modules", "version": "0.1.0", "licence": "MIT", "homepage": "https://example.org",
        "summary": "A tool", "files": [{"name": "tool.tar"}],
        "sources": {"upstream": {"url": "https://example.org/x", "checksum_url": "https://example.org/y"}},
    }  # fmt: skip
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "modules.yml").write_text(json.dumps(data))
    declared = declaration.load(tmp_path / "artifacts" / "modules.yml")
    monkeypatch.setattr(api, "load_all", lambda: {"modules": declared})
    monkeypatch.setattr(api, "declarations_dir", lambda: tmp_path / "artifacts")
    monkeypatch.setattr(api, "ensure", lambda names: None)  # it is there
    with api.Store().workspace("modules") as work:
        (work / "tool.tar").write_text("content\n")
        api.Store().commit(declared, "build", "f" * 64, {"tool.tar": work / "tool.tar"}, 1.0)


LARGE = artefacts(
    {"kind": "wheel", "file": "toy-{version}.whl"},
    {"kind": "image", "file": "tool-{version}.tar", "needs": "images"},
    {"kind": "bundle", "file": "toy-{version}-bundle.tar", "needs": "bundle"},
)


def test_large_things_come_from_the_store(root: Path, tmp_path: Path, makers: dict[str, Any], stored: None) -> None:
    makers |= {"image": packages.image, "bundle": packages.bundle}
    (root / "requirements").mkdir()
    (root / "requirements" / "dev.txt").write_text("rich==15\n")
    commit(root)
    large = toys(products=LARGE)
    built = build.cut(root, large, tmp_path / "1", extras=["bundle", "images"])
    again = build.cut(root, large, tmp_path / "2", extras=["images", "bundle"])
    assert (tmp_path / "1" / "SHA256SUMS").read_bytes() == (tmp_path / "2" / "SHA256SUMS").read_bytes()
    assert (built.omitted, again.kept) == ({}, False)
    assert (tmp_path / "1" / "files" / "tool-0.1.0rc1.tar").read_text() == "content\n"
    with tarfile.open(tmp_path / "1" / "files" / "toy-0.1.0rc1-bundle.tar") as archive:
        archive.extractall(tmp_path / "bundle", filter="data")
    assert api_bundle.verify(tmp_path / "bundle" / "artefacts") == []
    assert (tmp_path / "bundle" / "artefacts" / "mirror" / "modules" / "0.1.0" / "tool.tar").is_file()
    assert (tmp_path / "bundle" / "requirements" / "dev.txt").is_file()
    assert set(build.cut(root, large, tmp_path / "3").omitted) == {"tool-0.1.0rc1.tar", "toy-0.1.0rc1-bundle.tar"}


# Built again


def test_a_difference_is_said_with_the_member_it_is_in(tmp_path: Path) -> None:
    first = packed(tmp_path / "1.tar.gz", ["a", "b"], 1000, {"a": b"x", "b": b"one"})
    second = packed(tmp_path / "2.tar.gz", ["a", "c"], 1000, {"a": b"yy", "c": b"two"})
    said = reproduce.by_members(first, second)
    assert re.fullmatch(r"a: size 1 and 2, sha256 \w{64} and \w{64}", said[0])
    assert said[1:] == ["b: only in the first", "c: only in the second"]
    third = packed(tmp_path / "3.tar.gz", ["a", "b"], 1001, {"a": b"x", "b": b"one"})
    assert reproduce.by_members(first, third) == ["a: time 1000 and 1001", "b: time 1000 and 1001"]
    fourth = packed(tmp_path / "4.tar.gz", ["b", "a"], 1000, {"a": b"x", "b": b"one"})
    assert reproduce.by_members(first, fourth) == ["the same members in another order"]


def test_files_that_are_no_archives_are_compared_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1").write_bytes(b"same and one")
    (tmp_path / "2").write_bytes(b"same and two!")
    assert reproduce.by_members(tmp_path / "1", tmp_path / "2") == [
        "outside of members, from byte 9 on; 12 and 13 bytes"
    ]
    assert reproduce.compare(tmp_path / "1", tmp_path / "1").same
    (tmp_path / "diffoscope").write_text('#!/bin/sh\necho "asked: $*"\nexit 1\n')  # as the real one, which found some
    (tmp_path / "diffoscope").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said = reproduce.compare(tmp_path / "1", tmp_path / "2").differences
    assert said[1:] == (f"asked: --text - {tmp_path / '1'} {tmp_path / '2'}",)
    missing = reproduce.compare(tmp_path / "1", tmp_path / "3")
    assert (missing.same, missing.differences) == (False, ("only one build has it",))


@pytest.mark.parametrize(("second", "status", "word"), [("1", 0, "reproduced"), ("2", 1, "not reproduced")])
def test_the_command_ends_with_1_where_a_file_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, status: int, word: str
) -> None:
    compared = reproduce.File("a.whl", "1", second, () if second == "1" else ("b: size 1 and 2",))
    found = reproduce.Reproduced((compared,), ("nfpm: 1, now 2",))
    monkeypatch.setattr(reproduce, "reproduce", lambda folder, root: found)
    done = CliRunner().invoke(app, ["reproduce", str(tmp_path)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (status, word)
    assert ("a.whl: b: size 1 and 2" in done.stdout) == (status == 1)
    assert "other tools: nfpm: 1, now 2" in done.stdout
    data = json.loads(CliRunner().invoke(app, ["reproduce", str(tmp_path), "--json"]).stdout)
    assert (data["ok"], data["files"][0]["same"]) == (status == 0, status == 0)


def test_what_is_no_candidate_is_not_built_again(tmp_path: Path, root: Path, makers: dict[str, Any]) -> None:
    with pytest.raises(DeepError, match="this is no candidate"):
        reproduce.reproduce(tmp_path, root)
    cut(root, tmp_path / "out")
    other = release_repository.repository(tmp_path / "other")
    (other / "README.md").write_text("# Of another history\n")
    git(other, "commit", "--quiet", "--all", "--amend", "--message=y")
    git(other, "reflog", "expire", "--expire=now", "--all")
    git(other, "gc", "--quiet", "--prune=now")
    with pytest.raises(DeepError, match="needed: a repository with this commit"):
        reproduce.reproduce(tmp_path / "out", other)
    (tmp_path / "out" / "inputs.json").unlink()
    with pytest.raises(DeepError, match=r"found: no .*inputs\.json"):
        reproduce.reproduce(tmp_path / "out", root)
