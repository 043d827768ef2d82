"""The project's own candidate, as its users get it: built twice, read back, installed, its signatures verified."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import build, candidate, manifest, members, reproduce, signing
from pipelines.release.build import Built
from pipelines.release.openpgp import Keyring
from testbed.files import sha256_of
from tests.unit import release_repository

URL = "https://repository.example.org/testing"
ANSIBLE = str(Path(sys.executable).parent / "ansible-galaxy")
RPMSIGN = shutil.which("rpmsign") and shutil.which("rpmkeys")
MINE = release_repository.candidate_of("deep-testbed-0.1")
SOURCE = f"deep_testbed-{MINE.version}"
SDIST = f"{SOURCE}.tar.gz"
PACKAGE = "usr/share/ansible/collections/ansible_collections/deephdc/testbed"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one commit with the files of this tree as they are now."""
    return release_repository.of_this_tree(tmp_path_factory.mktemp("release") / "repository")


@pytest.fixture(scope="module")
def keyring() -> Iterator[tuple[Keyring, str]]:
    """A key of this test, and the agent that holds it ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as name:  # a socket's path may not be long
        gpg = ["gpg", "--homedir", name, "--batch", "--quiet", "--passphrase", ""]
        try:
            # Older than the signatures that it makes.
            argv = [*gpg, "--quick-generate-key", "Release <release@example.org>", "rsa2048", "sign"]
            subprocess.run(argv, check=True, capture_output=True)
            listed = subprocess.run([*gpg, "--with-colons", "-K"], check=True, capture_output=True, text=True).stdout
            (fingerprint,) = (line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
            yield Keyring(Path(name)), fingerprint
        finally:
            subprocess.run(["gpgconf", "--homedir", name, "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def built(root: Path, keyring: tuple[Keyring, str], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The candidate with all signatures; without those of packages of RPM where the machine has no rpmsign."""
    folder = tmp_path_factory.mktemp("candidate")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with pytest.MonkeyPatch.context() as patch:
        if not RPMSIGN:
            patch.setattr(signing, "rpm_signer", lambda *_: signing.unsigned)
        return build.cut(
            root, MINE, folder / "out", url=URL, keyring=keyring[0], key=keyring[1],
            signing_key=key,
        )  # fmt: skip


def path(built: Built, name: str) -> Path:
    return built.folder / candidate.FILES / name


def test_everything_that_is_declared_is_built(built: Built) -> None:
    large = {"bundle", "images"}
    wanted = {file for _, one, file in MINE.files() if one.needs not in large}
    assert {one.file for one in candidate.read(built.folder).artefacts if one.kind != "notes"} == wanted
    assert set(built.omitted.values()) == {"--with bundle", "--with images"}


def test_the_digests_are_signed_by_the_key(built: Built, keyring: tuple[Keyring, str]) -> None:
    sums = built.folder / candidate.SUMS
    keyring[0].verify((built.folder / candidate.SIGNATURE).read_bytes(), sums.read_bytes(), [keyring[1]])
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", sums], cwd=built.folder / candidate.FILES, check=True
    )


def planted(built: Built, folder: Path) -> Path:
    """A copy of the candidate in whose source archive somebody has put a file, and made the digest fit."""
    fake = folder / "fake"
    shutil.copytree(built.folder, fake)
    sdist = fake / candidate.FILES / SDIST
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "planted", filter="data")
    (folder / "planted" / SOURCE / "testbed" / "planted.py").write_text("x = 1\n")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(folder / "planted" / SOURCE, SOURCE)
    artefacts = [
        one.model_copy(update={"sha256": sha256_of(sdist)}) if one.file == SDIST else one
        for one in built.candidate.artefacts
    ]
    made = built.candidate.model_copy(update={"artefacts": tuple(artefacts)})
    made.write(fake)
    (fake / candidate.SUMS).write_text(build.sums(fake, made))
    return fake


def test_it_is_the_same_built_again_elsewhere_and_what_is_not_is_found_out(
    built: Built, root: Path, tmp_path: Path
) -> None:
    found = reproduce.reproduce(planted(built, tmp_path), root)
    # The second build has what the first had, byte for byte: every file.
    assert {one.file: one.second for one in found.files} == {one.file: one.sha256 for one in built.candidate.artefacts}
    # And the one file that was not built by us differs.
    (different,) = (one for one in found.files if not one.same)
    assert different.file == SDIST
    assert f"{SOURCE}/testbed/planted.py: only in the first" in different.differences
    assert (found.ok, found.tools) == (False, ())


def test_the_collection_is_installed_with_its_version(built: Built, tmp_path: Path) -> None:
    packed = path(built, f"deephdc-testbed-{MINE.semver}.tar.gz")
    argv = [ANSIBLE, "collection", "install", "--no-deps", "--collections-path", str(tmp_path), str(packed)]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home")}
    subprocess.run(argv, check=True, capture_output=True, env=environment, cwd=tmp_path)
    said = json.loads((tmp_path / "ansible_collections/deephdc/testbed/MANIFEST.json").read_text())
    assert said["collection_info"]["version"] == MINE.semver
    listed = [ANSIBLE, "collection", "verify", "--offline", "--collections-path", str(tmp_path), "deephdc.testbed"]
    subprocess.run(listed, check=True, capture_output=True, env=environment, cwd=tmp_path)


def test_the_wheel_runs_the_command(built: Built, tmp_path: Path) -> None:
    wheel = path(built, f"deep_testbed-{MINE.version}-py3-none-any.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    assert f"\nVersion: {MINE.version}\n" in (tmp_path / "site" / f"{SOURCE}.dist-info" / "METADATA").read_text()
    script = "import sys; from testbed.cli import main; sys.argv = ['deep', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "release", "manifests", "--json"], check=True, capture_output=True,
        text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert [one["release"] for one in json.loads(done.stdout)["manifests"]] == list(manifest.load_all())


def fields(control: bytes) -> dict[str, str]:
    """A control file's fields."""
    lines = [line for line in control.decode().splitlines() if not line.startswith(" ")]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_deb_is_what_an_admin_installs(built: Built, tmp_path: Path) -> None:
    package = path(built, f"deep-testbed_{MINE.package}_all.deb")
    found = members.deb(package)
    control = fields(found["control.tar.gz/control"].content)
    assert (control["Package"], control["Version"], control["Architecture"]) == ("deep-testbed", MINE.package, "all")
    assert control["Recommends"] == "ansible-core (>= 2.20.0)"
    if not shutil.which("dpkg-deb"):
        assert f"data.tar.gz/{PACKAGE}/MANIFEST.json" in found
        return
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    assert json.loads((tmp_path / PACKAGE / "MANIFEST.json").read_text())["collection_info"]["version"] == MINE.semver
    assert (tmp_path / "usr/share/doc/deep-testbed/docs/site-admin.md").is_file()
    epoch = built.candidate.source_date_epoch
    installed = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert {one.stat().st_mtime for one in installed} == {epoch}
    assert {one.stat().st_mode & 0o777 for one in installed} == {0o644, 0o755}


def test_an_rpm_has_the_same_in_it(built: Built) -> None:
    package = path(built, f"deep-testbed-{MINE.package}-1.noarch.rpm")
    header, _ = members.rpm(package)
    assert (header["name"], header["version"], header["release"]) == ("deep-testbed", MINE.package, "1")
    assert (header["architecture"], header["build_host"]) == ("noarch", "localhost")
    assert header["build_time"] == [built.candidate.source_date_epoch]
    assert "ansible-core" in header["recommends"]
    inside = {name.lstrip("/") for name, one in members.rpm_files(package).items() if one.mode & 0o100000}
    deb = members.deb(path(built, f"deep-testbed_{MINE.package}_all.deb"))
    plain = {name.removeprefix("data.tar.gz/") for name, one in deb.items() if name.startswith("data.tar.gz/")}
    assert f"{PACKAGE}/MANIFEST.json" in inside
    assert inside <= plain


@pytest.mark.skipif(not RPMSIGN, reason="rpmsign is not here; on Debian and Ubuntu install the package rpm")
def test_packages_of_rpm_carry_the_signature_of_the_key(
    built: Built, keyring: tuple[Keyring, str], tmp_path: Path
) -> None:
    key = tmp_path / "key.asc"
    key.write_bytes(keyring[0].public(keyring[1]))
    rpmkeys = ["rpmkeys", "--dbpath", str(tmp_path / "rpm")]
    subprocess.run([*rpmkeys, "--import", key], check=True)
    packages = sorted((built.folder / candidate.FILES).glob("*.rpm"))
    assert len(packages) == 2
    for package in packages:
        argv = [*rpmkeys, "--checksig", "--verbose", str(package)]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert f"key ID {keyring[1][-8:].lower()}: OK" in said


@pytest.mark.skipif(not shutil.which("apt-get"), reason="apt is not here")
def test_apt_reads_what_deephdc_release_brings(built: Built, tmp_path: Path) -> None:
    package = path(built, f"deephdc-release_{MINE.package}+debian12_all.deb")
    for name, one in members.deb(package).items():
        if one.content and name.startswith("data.tar.gz/"):
            target = tmp_path / name.removeprefix("data.tar.gz/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(one.content)
    argv = ["apt-get", "-o", f"Dir={tmp_path}", "-o", "APT::Architecture=amd64", "indextargets", "--no-release-info"]
    told = ["--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    said = subprocess.run([*argv, *told], check=True, capture_output=True, text=True).stdout.splitlines()
    assert set(said) == {f"{URL}/deep-0/debian12 {suite} main" for suite in ("base", "updates", "third-party")}


def sources(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("platform", ["debian12", "debian13", "ubuntu24.04"])
def test_deephdc_release_tells_apt_where_and_by_which_key(
    built: Built, keyring: tuple[Keyring, str], platform: str
) -> None:
    found = members.deb(path(built, f"deephdc-release_{MINE.package}+{platform}_all.deb"))
    assert fields(found["control.tar.gz/control"].content)["Version"] == f"{MINE.package}+{platform}"
    assert set(found["control.tar.gz/conffiles"].content.decode().split()) == {
        "/etc/apt/sources.list.d/deephdc.sources", "/etc/apt/preferences.d/deephdc.pref",
    }  # fmt: skip
    stanza = sources(found["data.tar.gz/etc/apt/sources.list.d/deephdc.sources"].content.decode())
    assert stanza == {
        "Types": "deb", "URIs": f"{URL}/deep-0/{platform}", "Suites": "base updates third-party", "Components": "main",
        "Signed-By": "/usr/share/keyrings/deephdc-archive-keyring.asc",
    }  # fmt: skip
    key = found["data.tar.gz/usr/share/keyrings/deephdc-archive-keyring.asc"].content
    assert key == keyring[0].public(keyring[1])
    pin = sources(found["data.tar.gz/etc/apt/preferences.d/deephdc.pref"].content.decode())
    assert (pin["Pin"], pin["Pin-Priority"]) == ('origin "repository.example.org"', "950")


def test_deephdc_release_tells_yum_where_and_by_which_key(built: Built, keyring: tuple[Keyring, str]) -> None:
    package = path(built, f"deephdc-release-{MINE.package}-1.el9.noarch.rpm")
    assert members.rpm(package)[0]["release"] == "1.el9"
    found = members.rpm_files(package)
    text = found["/etc/yum.repos.d/deephdc.repo"].content.decode()
    for suite in ("base", "updates", "third-party"):
        assert f"[deephdc-{suite}]\n" in text
        assert f"baseurl={URL}/deep-0/el9/{suite}\n" in text
    for line in ("gpgcheck=1", "repo_gpgcheck=1", "skip_if_unavailable=0", "priority=40"):
        assert text.count(f"\n{line}\n") == 3
    assert found["/etc/pki/rpm-gpg/RPM-GPG-KEY-deephdc"].content == keyring[0].public(keyring[1])


def test_the_bill_names_what_it_is_of(built: Built) -> None:
    bill: dict[str, Any] = json.loads(path(built, f"deep-testbed-{MINE.version}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == MINE.version
    assert {"ansible", "pydantic"} <= {one["name"] for one in bill["components"]}


def test_a_second_build_of_the_same_is_kept(built: Built, root: Path, keyring: tuple[Keyring, str]) -> None:
    before = (built.folder / candidate.SIGNATURE).read_bytes()
    again = build.cut(root, MINE, built.folder, url=URL, keyring=keyring[0], key=keyring[1])
    assert again.kept
    assert (built.folder / candidate.SIGNATURE).read_bytes() == before
