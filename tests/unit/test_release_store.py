"""A candidate on its way: what each step makes, that it can be repeated and taken back, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import candidate as candidates
from pipelines.release.candidate import FILES, INPUTS, PROVENANCE, SIGNATURE, SUMS
from pipelines.release.openpgp import Keyring
from pipelines.release.repository import SEALS
from pipelines.release.steps import Release, status
from pipelines.release.store import QUALITY, STATE
from testbed.errors import DeepError
from tests.unit import release_toys
from tests.unit.release_toys import NOW, Workshop, contents, in_production, replaced

pytestmark = release_toys.NEEDS_PROGRAMS


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with release_toys.workshop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def first(shop: Workshop) -> Path:
    return shop.candidate("1.0.0")


@pytest.fixture(scope="module")
def second(shop: Workshop) -> Path:
    return shop.candidate("1.1.0", {"tool": "tool 1.1.0\n", "library": "of others\n"}, third_party=("library",))


@pytest.fixture
def release(shop: Workshop, tmp_path: Path) -> Release:
    return shop.release(tmp_path / "store")


def public(release: Release, stage: str) -> Path:
    return release.store.public / stage / "deep-1"


def fields(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").partition("SHA256:")[0].splitlines()
    return dict(line.split(": ", 1) for line in lines)


# --- the way --------------------------------------------------------------------------------------------------------


def test_a_candidate_becomes_repositories_for_every_platform(release: Release, first: Path) -> None:
    state, changed = release.stage(first)
    assert (changed, state.line, state.stage, state.versions) == (True, "deep-1", "preview", {"base": "1.0.0"})
    folder = public(release, "preview")
    assert fields(folder / "debian12/dists/base/Release") == {
        "Origin": "DEEP", "Label": "deep-1", "Suite": "preview", "Codename": "base", "Architectures": "amd64 arm64",
        "Date": "Tue, 22 Sep 2026 14:13:20 UTC", "Components": "main", "Description": "deep-1 1.0.0, base of preview",
    }  # fmt: skip
    index = (folder / "debian12/dists/base/main/binary-amd64/Packages").read_text()
    assert "Package: tool\n" in index
    assert "Filename: pool/base/tool_1.0.0_all.deb\n" in index
    # A host names every suite from the beginning.
    assert (folder / "debian12/dists/updates/InRelease").is_file()
    assert (folder / "el9/third-party/repodata/repomd.xml.asc").is_file()
    published = release.store.public / "candidates/deep-1/1.0.0"
    assert candidates.read(published) == candidates.read(first)
    # One file, wherever it is named.
    of_candidate = published / FILES / "tool_1.0.0_all.deb"
    assert of_candidate.samefile(folder / "debian12/pool/base/tool_1.0.0_all.deb")
    assert of_candidate.stat().st_mode & 0o777 == 0o444


def test_promotion_brings_the_same_files_under_another_seal(release: Release, first: Path) -> None:
    in_production(release, first)
    preview, production = public(release, "preview"), public(release, "production")
    assert fields(production / "debian12/dists/base/Release")["Suite"] == "production"
    names = {name for name in contents(preview) if Path(name).name not in SEALS}
    assert names == {name for name in contents(production) if Path(name).name not in SEALS}
    assert all((preview / name).samefile(production / name) for name in names)
    assert any(name.endswith(".rpm") for name in names)
    found = release.verify()
    assert found["ok"], found
    assert [row["examined"]["packages"] for row in found["stages"]] == [2, 2, 2]


def test_every_step_can_be_repeated(release: Release, first: Path, second: Path) -> None:
    in_production(release, first)
    release.stage(second)
    release.promote("1.1.0", "testing")
    before = contents(release.store.root)
    assert not release.stage(second)[1]
    assert not release.promote("1.1.0", "testing")[1]
    assert not release.rollback("1.0.0", "production")[1]
    assert contents(release.store.root) == before


def test_an_update_leaves_the_base_and_replaces_the_update_before(
    release: Release, shop: Workshop, first: Path, second: Path
) -> None:
    in_production(release, first)
    versions = {one.file: (one.suite, one.version) for one in release.stage(second)[0].packages}
    assert versions["tool_1.0.0_all.deb"] == ("base", "1.0.0")
    assert versions["tool_1.1.0_all.deb"] == ("updates", "1.1.0")
    assert versions["library-1.1.0-1.noarch.rpm"] == ("third-party", "1.1.0")
    third, _ = release.stage(shop.candidate("1.1.1"))
    assert third.versions == {"base": "1.0.0", "updates": "1.1.1"}
    assert release.verify()["ok"]


def test_a_line_begins_with_its_first_release_not_with_candidates_of_it(release: Release, shop: Workshop) -> None:
    for version in ("3.0.0rc1", "3.0.0rc2", "3.0.0"):
        assert release.stage(shop.candidate(version, kinds=("deb",)))[0].versions == {"base": version}


def test_another_major_version_is_another_line(release: Release, shop: Workshop, first: Path) -> None:
    release.stage(first)
    release.stage(shop.candidate("2.0.0"))
    assert [(row["line"], row["version"]) for row in status(release.store)["stages"]] == [
        ("deep-1", "1.0.0"), ("deep-2", "2.0.0"),
    ]  # fmt: skip


def test_rollback_brings_packages_and_indices_back_byte_for_byte(release: Release, first: Path, second: Path) -> None:
    in_production(release, first)
    before = contents(public(release, "production").resolve())
    in_production(release, second)
    state, changed = release.rollback("1.0.0", "production")
    after = contents(public(release, "production").resolve())
    assert (changed, state.number) == (True, 3)
    assert set(before) == set(after)
    different = {Path(name).name for name, said in after.items() if said != before[name]}
    assert different == {"Release", "InRelease", "Release.gpg", "repomd.xml.asc", STATE}
    # It is later than the one that it replaces: apt would pass it over in silence.
    assert fields(public(release, "production") / "debian12/dists/base/Release")["Date"].endswith("14:13:22 UTC")
    assert release.verify()["ok"]


def test_status_says_what_is_where_since_when(release: Release, shop: Workshop, first: Path, second: Path) -> None:
    in_production(release, first)
    release.stage(second)
    rows = {row["stage"]: row for row in status(release.store)["stages"]}
    assert (rows["preview"]["version"], rows["production"]["version"]) == ("1.1.0", "1.0.0")
    assert rows["production"]["since"] == "2026-09-22T14:13:20Z"
    assert rows["preview"]["commit"] == shop.commit
    assert rows["preview"]["suites"] == {"base": "1.0.0", "updates": "1.1.0", "third-party": "1.1.0"}


def test_a_new_key_seals_what_is_there_anew(release: Release, shop: Workshop, first: Path) -> None:
    in_production(release, first)
    new = release_toys.new_key(shop.keyring.home or Path(), "later")
    rotated = shop.release(release.store.root, keys=(new,))
    said = {row["stage"]: " ".join(row["problems"]) for row in rotated.verify()["stages"]}
    assert f"signed with the key {shop.key}, not {new}" in said["production"]
    for _ in range(2):
        rotated.stage(first)
        rotated.promote("1.0.0", "testing")
        rotated.promote("1.0.0", "production")
    assert rotated.verify()["ok"]
    assert status(release.store)["stages"][2]["state"] == "production-0002"


# --- what is refused ------------------------------------------------------------------------------------------------


def spoiled(shop: Workshop, made: Path, folder: Path) -> Path:
    """A copy of a candidate, to be spoiled."""
    return Path(shutil.copytree(made, folder / "spoiled"))


def other_commit(shop: Workshop, folder: Path) -> None:
    shop.attest(folder / QUALITY, "0" * 40)


def failed(shop: Workshop, folder: Path) -> None:
    shop.attest(folder / QUALITY, shop.commit, passed=False)


def built_of_another_commit(shop: Workshop, folder: Path) -> None:
    shop.sign(folder, candidates.read(folder), built="0" * 40)


def other_files(shop: Workshop, folder: Path) -> None:
    said = candidates.read(folder)
    fewer = said.model_copy(update={"artefacts": said.artefacts[:-1]})
    sums, signature = (folder / SUMS).read_bytes(), (folder / SIGNATURE).read_bytes()
    shop.sign(folder, fewer)
    said.write(folder)
    (folder / SUMS).write_bytes(sums)
    (folder / SIGNATURE).write_bytes(signature)


def envelope_of_a_stranger(shop: Workshop, folder: Path) -> None:
    known = shop.signer.read_bytes()
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", folder / "stranger"], check=True)
    try:
        (folder / "stranger").replace(shop.signer)
        word = (folder / QUALITY).read_bytes()
        shop.sign(folder, candidates.read(folder))
        (folder / QUALITY).write_bytes(word)
    finally:
        shop.signer.write_bytes(known)


def sums_of_another(shop: Workshop, folder: Path) -> None:
    (folder / SUMS).write_text((folder / SUMS).read_text().replace("notes", "note"))


def foreign_key(shop: Workshop, folder: Path) -> None:
    stranger = release_toys.new_key(shop.keyring.home or Path(), "stranger")
    shop.sign(folder, candidates.read(folder), key=stranger)


def other_inputs(shop: Workshop, folder: Path) -> None:
    (folder / INPUTS).write_text((folder / INPUTS).read_text().replace('"tagged"', '"any"'))


def inputs_of_another(shop: Workshop, folder: Path) -> None:
    shop.sign(folder, candidates.read(folder), version="1.0.1")


def without(name: str) -> Callable[[Workshop, Path], None]:
    return lambda _, folder: (folder / name).unlink()


REFUSED: dict[str, tuple[Callable[[Workshop, Path], None], str]] = {
    "no word of the gate": (without(QUALITY), r"nobody attests it \(found: no .*sqa\.intoto\.json"),
    "the gate saw another commit": (other_commit, r"the quality gate has seen another commit \(found: 0{40}"),
    "the gate did not pass": (failed, r"the quality gate did not pass \(found: QC\.Sty01"),
    "no signature": (without(SIGNATURE), r"the candidate is not signed"),
    "other sums": (sums_of_another, r"the signature does not hold \(found: something else was signed"),
    "no inputs": (without(INPUTS), r"the candidate is not signed \(found: no inputs\.json"),
    "other inputs": (
        other_inputs,
        r"SHA256SUMS is not of this candidate \(found: [0-9a-f]{64}  \.\./inputs\.json; [0-9a-f]",
    ),
    "inputs of another": (inputs_of_another, r"inputs\.json is of another candidate \(found: toy 1\.0\.1 "),
    "a foreign key": (foreign_key, r"the signature does not hold \(found: by another key"),
    "no provenance": (without(PROVENANCE), r"nobody attests it \(found: no .*provenance"),
    "built of another commit": (built_of_another_commit, r"the provenance is of another commit \(found: 0{40}"),
    "provenance of other files": (other_files, r"the provenance is of other files \(found: notes-1\.0\.0\.md"),
    "provenance of a stranger": (envelope_of_a_stranger, r"no signature of a known signer holds"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_candidate_is_refused_for(release: Release, shop: Workshop, first: Path, tmp_path: Path, what: str) -> None:
    spoil, message = REFUSED[what]
    folder = spoiled(shop, first, tmp_path)
    spoil(shop, folder)
    with pytest.raises(DeepError, match=message) as caught:
        release.stage(folder)
    assert caught.value.exit_code == 1
    planned = release.plan(folder)
    assert not planned["ok"]
    assert str(caught.value) in planned["steps"][0]["refused"]
    assert not [*release.store.public.glob("candidates/*/*"), *release.store.public.glob("states/*")]


def test_an_altered_file_is_refused(release: Release, shop: Workshop, first: Path, tmp_path: Path) -> None:
    folder = spoiled(shop, first, tmp_path)
    (folder / FILES / "notes-1.0.0.md").write_text("other\n")
    with pytest.raises(DeepError, match=r"not as it was built \(found: notes-1\.0\.0\.md has the digest"):
        release.stage(folder)


def test_all_reasons_are_given_at_once(release: Release, shop: Workshop, first: Path, tmp_path: Path) -> None:
    folder = spoiled(shop, first, tmp_path)
    for name in (QUALITY, SIGNATURE):
        (folder / name).unlink()
    with pytest.raises(DeepError, match=r"refused for 2 reasons .*not signed.*nobody attests it"):
        release.stage(folder)


def test_a_package_that_nobody_signed_is_refused(release: Release, shop: Workshop, tmp_path: Path) -> None:
    other = release_toys.new_key(shop.keyring.home or Path(), "other")
    made = shop.candidate("1.0.0", {"unsigned": "x"})
    shop.sign(made, candidates.read(made), key=other)  # but the packages have the signature of the first key
    with pytest.raises(DeepError, match=r"a package is not signed \(found: unsigned-1\.0\.0-1\.noarch\.rpm"):
        shop.release(tmp_path / "store", build_keys=(other,)).stage(made)


def test_a_version_cannot_have_another_content(release: Release, shop: Workshop, first: Path) -> None:
    release.stage(first)
    again = shop.candidate("1.0.0", {"tool": "something else\n"})
    with pytest.raises(
        DeepError, match=r"1\.0\.0 exists with another content \(found: tool-1\.0\.0-1\.noarch\.rpm, tool_1"
    ):
        release.stage(again)
    assert any("exists with another content" in why for why in release.plan(again)["steps"][0]["refused"])


def test_nor_can_a_package_in_a_later_candidate(release: Release, shop: Workshop, first: Path) -> None:
    release.stage(first)
    later = shop.candidate("1.2.0")
    path = later / FILES / "tool_1.0.0_all.deb"
    (later / FILES / "tool_1.2.0_all.deb").rename(path)
    said = candidates.Candidate.model_validate_json((later / candidates.DOCUMENT).read_bytes())
    renamed = [one.model_copy(update={"file": path.name}) if one.kind == "deb" else one for one in said.artefacts]
    shop.sign(later, said.model_copy(update={"artefacts": tuple(renamed)}))
    with pytest.raises(
        DeepError, match=r"published before with another content \(found: tool_1\.0\.0_all\.deb of 1\.0\.0"
    ):
        release.stage(later)


def test_a_dirty_repository_is_refused(release: Release, shop: Workshop, first: Path) -> None:
    stray = shop.root / "stray"
    stray.write_text("new")
    try:
        with pytest.raises(DeepError, match="the repository is not what one of its commits is"):
            release.stage(first)
    finally:
        stray.unlink()


def test_stages_are_taken_one_after_the_other(release: Release, first: Path, second: Path) -> None:
    release.stage(first)
    with pytest.raises(
        DeepError, match=r"1\.0\.0 is not in testing, .*found: 1\.0\.0 in preview; testing has nothing"
    ) as no:
        release.promote("1.0.0", "production")
    assert no.value.next_step == "deep release promote 1.0.0 testing"
    with pytest.raises(DeepError, match="nothing is promoted to preview"):
        release.promote("1.0.0", "preview")
    with pytest.raises(DeepError, match=r"1\.1\.0 is not in preview"):
        release.promote("1.1.0", "testing")


def test_an_older_version_comes_only_when_asked_for(release: Release, first: Path, second: Path) -> None:
    in_production(release, first, second)
    with pytest.raises(DeepError, match=r"preview has a newer version \(found: 1\.1\.0"):
        release.stage(first)
    assert release.stage(first, downgrade=True)[0].versions == {"base": "1.0.0"}
    with pytest.raises(DeepError, match="testing has a newer version"):
        release.promote("1.0.0", "testing")
    assert [bool(one["refused"]) for one in release.plan(first)["steps"]] == [False, True, True]
    assert release.promote("1.0.0", "testing", downgrade=True)[1]


def test_only_what_a_stage_has_had_is_brought_back(release: Release, first: Path, second: Path) -> None:
    in_production(release, first)
    release.stage(second)
    with pytest.raises(DeepError, match=r"production never had this version \(found: 1\.1\.0; needed: one of: 1\.0\.0"):
        release.rollback("1.1.0", "production")


def test_an_expired_key_signs_nothing(shop: Workshop, first: Path, tmp_path: Path) -> None:
    expired = release_toys.new_key(shop.keyring.home or Path(), "expired", "1d")
    release = shop.release(tmp_path / "store", keys=(expired,))
    with pytest.raises(DeepError, match=rf"the key {expired} has expired \(found: 2026-09-21"):
        release.stage(first)


def test_a_key_is_named_by_its_fingerprint(shop: Workshop) -> None:
    with pytest.raises(DeepError, match=r"not the fingerprint of a key \(found: DEADBEEF"):
        shop.keyring.find("DEADBEEF")
    with pytest.raises(DeepError, match="there is no such key"):
        shop.keyring.find("0" * 40)


def test_a_passphrase_that_others_may_read_is_refused(shop: Workshop, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    key = release_toys.new_key(shop.keyring.home or Path(), "closed", passphrase="correct horse")
    keyring = Keyring(shop.keyring.home, secret)
    secret.chmod(0o644)
    with pytest.raises(DeepError, match=r"others may read the passphrase \(found: .*: mode 644; needed: 600"):
        keyring.detached(b"text", key, NOW)
    secret.chmod(0o600)
    assert keyring.verify(keyring.detached(b"text", key, NOW), b"text", [key]) == b"text"


def test_a_missing_program_is_named_with_its_package(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "createrepo_c" else found(name))
    with pytest.raises(DeepError, match=r"createrepo_c is missing \(needed: the package createrepo-c"):
        release.stage(first)


# --- what verify sees -----------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replaced(path, bytes(content))


def cut(path: Path) -> None:
    replaced(path, path.read_bytes()[:-12])


def longer_index(folder: Path) -> None:
    path = folder / "debian12/dists/base/main/binary-amd64/Packages"
    replaced(path, path.read_bytes() + b"Package: more\nFilename: pool/base/more.deb\nSHA256: 0\n\n")


def other_index(folder: Path) -> None:
    replaced(next((folder / "el9/base/repodata").glob("*primary.xml.gz")), b"x")


def of_another_stage(folder: Path) -> None:
    for name in ("Release", "InRelease", "Release.gpg"):
        path = f"debian12/dists/base/{name}"
        shutil.copy(folder.parents[1] / "testing/deep-1" / path, folder / path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a package": (lambda folder: flip(folder / "debian12/pool/base/tool_1.0.0_all.deb"), "has the digest"),
    "a package gone": (lambda folder: (folder / "el9/base/tool-1.0.0-1.noarch.rpm").unlink(), "is missing"),
    "a package more": (
        lambda folder: (folder / "debian12/pool/base/x.deb").write_bytes(b"x"), "x.deb was not published",
    ),
    "an index of apt": (longer_index, "the indices are not those that were signed"),
    "an index of yum": (other_index, "primary is not what was signed"),
    "a list of yum": (
        lambda folder: flip(folder / "el9/base/repodata/repomd.xml"), "el9 base: the signature does not hold",
    ),
    "a signature": (
        lambda folder: (folder / "debian12/dists/base/Release.gpg").unlink(), r"debian12 base: .*Release\.gpg",
    ),
    "an index of apt cut short": (
        lambda folder: cut(folder / "debian12/dists/base/main/binary-amd64/Packages.gz"),
        r"debian12 base: .*end-of-stream",
    ),
    "an index of apt that does not unpack": (
        lambda folder: flip(folder / "debian12/dists/base/main/binary-amd64/Packages.gz"), "debian12 base: ",
    ),
    "the key": (lambda folder: replaced(folder / "key.asc", b"another"), "key.asc has no key, not"),
    "another stage's": (of_another_stage, "the indices are not those that were signed"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_verify_sees(release: Release, first: Path, what: str) -> None:
    in_production(release, first)
    spoil, message = DAMAGE[what]
    spoil(public(release, "production"))
    found = release.verify()
    assert not found["ok"]
    problems = " ".join(next(row for row in found["stages"] if row["stage"] == "production")["problems"])
    assert re.search(message, problems), problems


def test_a_damaged_stage_is_not_promoted(release: Release, first: Path) -> None:
    release.stage(first)
    flip(public(release, "preview") / "debian12/pool/base/tool_1.0.0_all.deb")
    with pytest.raises(DeepError, match=r"1\.0\.0 of preview is not whole .*has the digest"):
        release.promote("1.0.0", "testing")
    assert release.store.current("deep-1", "testing") is None


def test_verify_sees_a_stage_that_somebody_has_moved(release: Release, first: Path, second: Path) -> None:
    in_production(release, first, second)
    link = public(release, "production")
    link.unlink()
    link.symlink_to("../states/deep-1/production-0001")
    assert release.verify()["problems"] == ["deep-1 production has production-0001, by the journal production-0002"]


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a state gone": (shutil.rmtree, r"state\.json: No such file or directory"),
    "a document gone": (lambda folder: (folder / STATE).unlink(), r"state\.json: No such file or directory"),
    "a document cut short": (lambda folder: cut(folder / STATE), r"state\.json: found b'\{.*\.\.\., needed JSON"),
    "a document of another kind": (lambda folder: replaced(folder / STATE, b"{}"), r"state\.json: line: is missing"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_stage_that_cannot_be_read_is_named_beside_the_others(release: Release, first: Path, what: str) -> None:
    release.stage(first)
    release.promote("1.0.0", "testing")
    spoil, message = UNREADABLE[what]
    spoil(public(release, "testing").resolve())
    for found in (status(release.store), release.verify()):
        assert not found["ok"]
        assert [row["stage"] for row in found["stages"]] == ["preview"]
        assert re.search(rf"testing/deep-1: not a state of a stage \(found: {message}", found["problems"][0])
        assert len(found["problems"]) == 1


def test_status_sees_a_stage_that_is_gone(release: Release, first: Path) -> None:
    in_production(release, first)
    public(release, "production").unlink()
    said = "deep-1 production has nothing, by the journal production-0001"
    assert deep(release, "status", status=1)["problems"] == [said]
    shutil.rmtree(release.store.public / "states")
    assert len(deep(release, "status", status=1)["problems"]) == 3


def test_verify_sees_a_candidate_that_was_altered(release: Release, first: Path) -> None:
    release.stage(first)
    replaced(release.store.public / "candidates/deep-1/1.0.0" / QUALITY, b"{}")
    assert "candidate 1.0.0: not a DSSE envelope" in " ".join(release.verify()["stages"][0]["problems"])


def test_verify_warns_of_a_key_that_will_expire(shop: Workshop, first: Path, tmp_path: Path) -> None:
    soon = release_toys.new_key(shop.keyring.home or Path(), "soon", "10d", at=int(time.time()))
    release = shop.release(tmp_path / "store", time.time, keys=(soon,))
    release.stage(first)
    found = release.verify()
    assert found["ok"]
    assert f"the key {soon} expires on" in found["stages"][0]["warnings"][0]


def test_verify_of_nothing_is_no_success(release: Release) -> None:
    for look in (release.verify, lambda: status(release.store), lambda: release.promote("1.0.0", "testing")):
        with pytest.raises(DeepError, match="there is no store of releases") as refused:
            look()
        assert refused.value.exit_code == 2
    assert not release.store.root.exists()  # only what stages makes one


# --- two at once, and a journal that was cut ------------------------------------------------------------------------


def test_two_at_once_are_refused(release: Release, first: Path) -> None:
    release.stage(first)
    with (
        release.store.locked(),
        pytest.raises(DeepError, match=f"another command is working on the store .*{os.getpid()}"),
    ):
        release.promote("1.0.0", "testing")


def test_a_line_that_was_cut_counts_for_nothing(release: Release, first: Path) -> None:
    release.stage(first)
    journal = release.store.journal
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"number": 2, "what": "int')
    release.promote("1.0.0", "testing")
    assert journal.path.read_bytes().startswith(whole)
    assert [(one.number, one.what, one.step) for one in journal.records()] == [
        (1, "intent", "stage"), (1, "done", "stage"), (2, "intent", "promote"), (2, "done", "promote"),
    ]  # fmt: skip


def test_a_line_of_nobody_stops_everything(release: Release, first: Path) -> None:
    release.stage(first)
    release.store.journal.path.write_text("not ours\n")
    with pytest.raises(DeepError, match=r"journal\.jsonl:1: not a line of a journal"):
        release.promote("1.0.0", "testing")


# --- the command ----------------------------------------------------------------------------------------------------


def deep(release: Release, *words: str | Path, status: int = 0) -> dict[str, Any]:
    environment = {
        **os.environ, "DEEP_RELEASE_STORE": str(release.store.root), "DEEP_RELEASE_KEY": release.trust.keys[0],
        "GNUPGHOME": str(release.trust.keyring.home),
    }  # fmt: skip
    argv = [sys.executable, "-c", "from testbed.cli import main; main()", "release", *map(str, words), "--json"]
    done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_the_command_line_goes_the_whole_way(release: Release, shop: Workshop, first: Path) -> None:
    root = ("--root", shop.root)
    planned = deep(release, "plan", first, *root)
    assert [one["does"] for one in planned["steps"]] == [
        "1.0.0 into preview", "1.0.0 into testing", "1.0.0 into production",
    ]  # fmt: skip
    assert planned["suites"] == {"base": 2}
    assert not release.store.root.exists()
    assert deep(release, "stage", first, *root)["changed"]
    assert "is not in testing" in deep(release, "promote", "1.0.0", "production", *root, status=1)["error"]["message"]
    assert deep(release, "promote", "1.0.0", "testing", *root)["state"] == "testing-0001"
    assert deep(release, "verify", *root)["ok"]
    assert [row["stage"] for row in deep(release, "status")["stages"]] == ["preview", "testing"]
