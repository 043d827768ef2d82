"""What a build signs: its own files alone, with keys that sign, for hosts that believe the repositories' keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.release import build, candidate, manifest, members, packages, programs, reproduce
from pipelines.release.candidate import FILES, INPUTS, PROVENANCE, SIGNATURE, SUMS
from pipelines.release.openpgp import Keyring
from pipelines.release.signing import Signer
from testbed import files
from testbed.cli.release import app
from testbed.errors import DeepError
from tests.unit import release_repository, release_toys
from tests.unit.release_repository import maker, toys
from tests.unit.test_release_manifest import MINE

pytestmark = release_toys.NEEDS_PROGRAMS

WHEEL = "toy-0.1.0rc1.whl"
URL = "https://repository.example.org/production"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with release_toys.gnupg() as folder:
        yield folder


def new_key(home: Path, name: str, passphrase: str = "") -> str:
    return release_toys.new_key(home, name, passphrase=passphrase, at=int(time.time()) - 86_400)


@pytest.fixture(scope="module")
def key(home: Path) -> str:
    return new_key(home, "build")


@pytest.fixture(scope="module")
def repository_key(home: Path) -> str:
    return new_key(home, "repositories")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return release_repository.repository(tmp_path / "repository")


@pytest.fixture
def signing_key(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "signer"], check=True)
    return tmp_path / "signer"


@pytest.fixture
def makers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A builder of a moment in place of the real ones."""
    quick: dict[str, Any] = {"wheel": maker()}
    monkeypatch.setattr(packages, "MAKERS", quick)
    return quick


def altered(out: Path) -> None:
    """Somebody changes a file of a candidate, and makes everything fit that has no signature."""
    (out / FILES / WHEEL).write_text("planted\n")
    made = candidate.Candidate.model_validate_json((out / candidate.DOCUMENT).read_bytes())
    artefacts = [
        one.model_copy(update={"sha256": files.sha256_of(out / FILES / WHEEL), "size": 8}) if one.file == WHEEL else one
        for one in made.artefacts
    ]
    made = made.model_copy(update={"artefacts": tuple(artefacts)})
    made.write(out)
    (out / SUMS).write_text(build.sums(out, made))


def unsigned(out: Path) -> None:
    """A build was killed before it had signed."""
    for name in (SIGNATURE, PROVENANCE):
        (out / name).unlink(missing_ok=True)


def broken(out: Path) -> None:
    for name in (SIGNATURE, PROVENANCE):
        if (out / name).exists():
            (out / name).write_text((out / name).read_text().replace("=", "A"))


def unlisted(out: Path) -> None:
    """Somebody changes what the candidate can be built again from."""
    said = json.loads((out / INPUTS).read_text())
    said["tools"]["nfpm"] = "other"
    (out / INPUTS).write_text(json.dumps(said))


@pytest.mark.parametrize("both", ["key", "signing_key"])
@pytest.mark.parametrize("change", [altered, unsigned, broken, unlisted])
def test_what_nobody_vouches_for_is_built_anew_before_it_is_signed(
    root: Path, home: Path, key: str, signing_key: Path, tmp_path: Path, makers: dict[str, Any],
    change: Callable[[Path], None], both: str,
) -> None:  # fmt: skip
    ring, out = Keyring(home), tmp_path / "out"
    options: dict[str, Any] = {"key": key} if both == "key" else {"signing_key": signing_key}
    first = build.cut(root, toys(), out, keyring=ring, **options)
    assert build.cut(root, toys(), out, keyring=ring, **options).kept
    change(out)
    again = build.cut(root, toys(), out, keyring=ring, **options)
    assert not again.kept
    assert (out / FILES / WHEEL).read_text() == "wheel\n"
    assert candidate.read(out) == again.candidate == first.candidate
    if both == "key":
        ring.verify((out / SIGNATURE).read_bytes(), (out / SUMS).read_bytes(), [key])


def test_a_candidate_that_was_not_signed_is_not_signed_later(
    root: Path, signing_key: Path, tmp_path: Path, makers: dict[str, Any]
) -> None:
    build.cut(root, toys(), tmp_path / "out")
    altered(tmp_path / "out")
    assert not build.cut(root, toys(), tmp_path / "out", signing_key=signing_key).kept
    assert (tmp_path / "out" / FILES / WHEEL).read_text() == "wheel\n"


def test_a_build_that_cannot_sign_leaves_what_was_there(
    root: Path, home: Path, key: str, tmp_path: Path, makers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(Signer, "check", lambda _: None)  # the key is lost between that and the signature
    monkeypatch.setattr(Keyring, "detached", lambda *_: (_ for _ in ()).throw(DeepError("no secret key")))
    with pytest.raises(DeepError, match="no secret key"):
        build.cut(root, toys(), out, keyring=Keyring(home), key=key)
    assert not out.exists()


def never(*_: Any) -> None:
    raise AssertionError("it is built")


def test_a_key_that_does_not_sign_is_known_before_anything_is_built(
    root: Path, home: Path, key: str, tmp_path: Path, makers: dict[str, Any]
) -> None:
    makers["wheel"] = never
    word = tmp_path / "word"
    word.write_text("x")
    word.chmod(0o644)

    def cut(home: Path, key: str) -> None:
        build.cut(root, toys(), tmp_path / "out", key=key, keyring=Keyring(home, word))

    with pytest.raises(DeepError, match=r"others may read the passphrase .*mode 644; needed: 600"):
        cut(home, key)
    word.chmod(0o600)
    locked = new_key(home, "locked", "another word")
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)  # which knows it still
    with pytest.raises(DeepError, match="gpg failed"):
        cut(home, locked)
    with release_toys.gnupg() as other:  # of a colleague who has the public key alone
        public = Keyring(home).public(key)
        subprocess.run(
            ["gpg", "--homedir", other, "--batch", "--import"], input=public, check=True, capture_output=True
        )
        with pytest.raises(DeepError, match="gpg failed"):
            cut(other, key)
    assert not (tmp_path / "out").exists()


def test_what_a_candidate_is_built_again_from_is_among_the_sums(
    root: Path, tmp_path: Path, makers: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    build.cut(root, toys(), out)
    argv = ["sha256sum", "--check", "--strict", "--quiet", "../SHA256SUMS"]
    assert subprocess.run(argv, cwd=out / FILES, check=False).returncode == 0
    unlisted(out)
    assert subprocess.run(argv, cwd=out / FILES, check=False, capture_output=True).returncode == 1
    with pytest.raises(DeepError, match=r"list of digests .*candidate\.json and inputs\.json") as refused:
        reproduce.reproduce(out, root)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        (("products", 0, "artefacts", 0, "file"), "../../victim-{version}.whl", "needed a name without a folder"),
        (("version",), "../../0.1.0", r"version: found '\.\./\.\./0\.1\.0'"),
        (("build",), None, "needed either 'published' or 'build'"),
    ],
)
def test_nothing_is_built_again_outside_of_its_folder(
    root: Path, tmp_path: Path, makers: dict[str, Any], where: tuple[Any, ...], value: Any, why: str
) -> None:
    out = tmp_path / "out"
    build.cut(root, toys(), out)
    said = json.loads((out / INPUTS).read_text())
    within = said["manifest"]
    for one in where[:-1]:
        within = within[one]
    within[where[-1]] = value
    (out / INPUTS).write_text(json.dumps(said))
    (out / SUMS).write_text(build.sums(out, candidate.read(out)))
    with pytest.raises(DeepError, match=why):
        reproduce.reproduce(out, root)


def test_what_was_published_by_others_is_not_built_again(root: Path, tmp_path: Path, makers: dict[str, Any]) -> None:
    build.cut(root, toys(), tmp_path / "out")
    said = json.loads((tmp_path / "out" / INPUTS).read_text())
    said["manifest"] = json.loads(manifest.find("deep-1").model_dump_json())
    (tmp_path / "out" / INPUTS).write_text(json.dumps(said))
    with pytest.raises(DeepError, match="deep-1 is published already"):
        reproduce.reproduce(tmp_path / "out", root)


# From a build to production


RELEASE = {
    **MINE,
    "version": "0.1.0",
    "build": {"commit": "tagged", "suites": ["base", "updates"], "apt_priority": 950, "yum_priority": 40},
    "platforms": {
        "debian12": {"title": "Debian 12", "packages": "deb"},
        "el9": {"title": "Enterprise Linux 9", "packages": "rpm"},
    },
    "products": [
        {"name": "toys.toy", "title": "Toy", "artefacts": [{"kind": "collection", "file": "toys-toy-{semver}.tar.gz"}]},
        {
            "name": "deep-testbed", "title": "Collection as a package", "artefacts": [
                {"kind": "deb", "file": "deep-testbed_{package}_all.deb"},
                {"kind": "rpm", "file": "deep-testbed-{package}-1.noarch.rpm"},
            ],
        },
        {
            "name": "deephdc-release", "title": "Where packages are", "artefacts": [
                {
                    "kind": "deb", "file": "deephdc-release_{package}+{platform}_all.deb", "platform": "debian12",
                    "needs": "repository",
                },
                {
                    "kind": "rpm", "file": "deephdc-release-{package}-1.{platform}.noarch.rpm", "platform": "el9",
                    "needs": "repository",
                },
            ],
        },
    ],
}  # fmt: skip
PACKAGES = [
    "deep-testbed-0.1.0-1.noarch.rpm", "deep-testbed_0.1.0_all.deb", "deephdc-release-0.1.0-1.el9.noarch.rpm",
    "deephdc-release_0.1.0+debian12_all.deb",
]  # fmt: skip


def with_packages(root: Path, signing_key: Path) -> None:
    """What packages are made of besides, and who may sign statements; the commit is tagged."""
    signer = f"maintainers {signing_key.with_suffix('.pub').read_text()}"
    texts = {
        "LICENSE": "Free.\n", "docs/index.md": "# Toy\n", "meta/runtime.yml": "requires_ansible: '>=2.16.0'\n",
        ".sqa/signers": signer,
    }  # fmt: skip
    for name, text in texts.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    shutil.rmtree(root / ".git")  # one commit, the first
    release_repository.commit(root)
    release_repository.git(root, "tag", "v0.1.0")


def test_what_is_built_comes_to_production_for_hosts_that_believe_the_repositories(
    root: Path, home: Path, key: str, repository_key: str, signing_key: Path, tmp_path: Path
) -> None:
    with_packages(root, signing_key)
    (tmp_path / "toy-0.1.yml").write_text(json.dumps(RELEASE))
    out, store = tmp_path / "out", tmp_path / "store"
    trusted = ["--gnupghome", str(home), "--root", str(root)]
    kept = ["--store", str(store), "--key", repository_key, "--build-key", key, *trusted]

    def deep(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.stdout
        read: dict[str, Any] = json.loads(done.stdout)
        return read

    deep(
        "build", str(tmp_path / "toy-0.1.yml"), "--output", str(out), "--repository-url", URL, "--key", key,
        "--repository-key", repository_key, "--signing-key", str(signing_key), *trusted,
    )  # fmt: skip
    commit = release_repository.git(root, "rev-parse", "HEAD").strip()
    release_toys.Workshop(tmp_path, Keyring(home), key).attest(out / "sqa.intoto.json", commit)
    deep("stage", str(out), *kept)
    for stage in ("testing", "production"):
        deep("promote", "0.1.0", stage, *kept)
    seen = {one["stage"]: one for one in deep("verify", *kept)["stages"]}
    assert [seen[stage]["problems"] for stage in ("preview", "testing", "production")] == [[], [], []]
    state = json.loads((store / "public" / "production" / "deep-0" / "state.json").read_text())
    assert sorted(one["file"] for one in state["packages"]) == PACKAGES
    _believed_by_hosts(store / "public" / "production" / "deep-0", out / FILES, tmp_path, (key, repository_key))


def _believed_by_hosts(line: Path, built: Path, folder: Path, keys: tuple[str, str]) -> None:
    """With the keys of deephdc-release alone: apt's signature holds, yum's, and that of a package of RPM."""
    key, repository_key = keys
    deb = members.deb(built / "deephdc-release_0.1.0+debian12_all.deb")
    rpm = members.rpm_files(built / "deephdc-release-0.1.0-1.el9.noarch.rpm")
    armoured = {
        "apt": deb["data.tar.gz/usr/share/keyrings/deephdc-archive-keyring.asc"].content,
        "yum": rpm["/etc/pki/rpm-gpg/RPM-GPG-KEY-deephdc"].content,
    }
    for name, block in armoured.items():
        (folder / f"{name}.asc").write_bytes(block)
        (folder / f"{name}.gpg").write_bytes(programs.call("gpg", "--dearmor", stdin=block).stdout)
        shown = programs.call("gpg", "--show-keys", "--with-colons", folder / f"{name}.asc").stdout.decode()
        found = {row.split(":")[9] for row in shown.splitlines() if row.startswith("fpr")}
        assert found == ({repository_key} if name == "apt" else {repository_key, key})
    programs.call("gpgv", "--keyring", folder / "apt.gpg", line / "debian12" / "dists" / "base" / "InRelease")
    index = line / "el9" / "base" / "repodata" / "repomd.xml"
    programs.call("gpgv", "--keyring", folder / "yum.gpg", f"{index}.asc", index)
    database = ("--dbpath", folder / "rpm")
    programs.call("rpmkeys", *database, "--import", folder / "yum.asc")
    said = programs.call("rpmkeys", *database, "--checksig", built / "deep-testbed-0.1.0-1.noarch.rpm").stdout.decode()
    assert "signatures OK" in said
