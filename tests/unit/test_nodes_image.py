"""Node images: made exactly when an input changed, and nothing left of a build that failed."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import apt, host, image
from testbed.errors import DeepError
from tests.unit.fake_docker import FakeDocker, api_error

DEBIAN12 = image.Image("debian12", "bookworm", {})


class Builder:
    """Stands in for ``run``: writes the archive that mmdebstrap would write."""

    def __init__(self) -> None:
        self.argv: list[list[str]] = []
        self.packed: list[str] = []
        self.modes: dict[str, int] = {}
        self.error: DeepError | None = None

    def __call__(self, argv: list[str], *, env: dict[str, str], **_: Path) -> None:
        self.argv.append(argv)
        folder = Path(env["TMPDIR"])
        with tarfile.open(folder / "files.tar") as tar:
            self.modes = {entry.name: entry.mode for entry in tar}
            assert all((entry.uid, entry.gid) == (0, 0) for entry in tar)
        if self.error:
            raise self.error
        (folder / "rootfs.tar").write_bytes(b"root file system")


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder()
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(image, "run", made)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(apt, "host_apt_sources", lambda suite: [f"deb http://archive.invalid {suite} main"])
    monkeypatch.setattr(apt, "host_apt_options", list)
    monkeypatch.setattr(host, "local_certificates", list)
    return made


@pytest.fixture
def client() -> Any:
    return FakeDocker()


def left_over(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "images").glob("build-*"))


def test_the_declared_releases_are_debian_12_and_13() -> None:
    assert {name: made.suite for name, made in image.releases().items()} == {
        "debian12": "bookworm",
        "debian13": "trixie",
    }
    assert image.named("debian13").tag == "deep-node:debian13"


def test_an_unknown_image_is_answered_with_the_known(builder: Builder) -> None:
    with pytest.raises(DeepError, match="unknown node image") as refused:
        image.named("fedora")
    assert refused.value.needed == "one of: debian12, debian13"


def test_a_missing_image_is_made_once(builder: Builder, client: Any, tmp_path: Path) -> None:
    assert image.ensure(client, DEBIAN12, tmp_path / "log")
    assert not image.ensure(client, DEBIAN12, tmp_path / "log")
    assert len(builder.argv) == 1
    assert client.all_images["deep-node:debian12"].labels[image.LABEL] == image.fingerprint(DEBIAN12)
    assert left_over(tmp_path) == []


def test_the_build_ends_with_us_and_keeps_its_mounts_to_itself(builder: Builder, client: Any, tmp_path: Path) -> None:
    image.ensure(client, DEBIAN12, tmp_path / "log")
    argv = builder.argv[0]
    assert argv[: argv.index("mmdebstrap")] == list(image.ISOLATED)
    assert "--kill-child" in argv
    assert "--mount" in argv
    assert argv[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert argv[-3] == "bookworm"


def test_programs_of_the_image_can_be_executed_and_nothing_else(builder: Builder, client: Any, tmp_path: Path) -> None:
    image.ensure(client, DEBIAN12, tmp_path / "log")
    programs = {name for name, mode in builder.modes.items() if mode == 0o755}
    assert programs == {
        "usr/sbin/policy-rc.d",
        *(f"usr/local/lib/deep-node/{name}" for name in ("init", "host-key", "ready")),
    }
    assert {mode for name, mode in builder.modes.items() if name not in programs} == {0o644}


@pytest.mark.parametrize("what", ["sources", "options", "certificates", "definition", "suite"])
def test_every_input_changes_the_fingerprint(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    before = image.fingerprint(DEBIAN12)
    changed = DEBIAN12
    if what == "sources":
        monkeypatch.setattr(apt, "host_apt_sources", lambda _: ["deb http://other.invalid x main"])
    elif what == "options":
        monkeypatch.setattr(apt, "host_apt_options", lambda: ['Acquire::http::Proxy "http://proxy.invalid";'])
    elif what == "certificates":
        monkeypatch.setattr(host, "local_certificates", lambda: ["PEM"])
    elif what == "suite":
        changed = image.Image("debian12", "trixie", {})
    else:
        (tmp_path / "node_image").mkdir()
        (tmp_path / "node_image" / "image.yml").write_text("packages: []\n", encoding="utf-8")
        monkeypatch.setattr(image, "DEFINITION", tmp_path / "node_image")
    assert image.fingerprint(changed) != before


def test_a_changed_input_makes_the_image_again_and_drops_the_old(
    builder: Builder, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image.ensure(client, DEBIAN12, tmp_path / "log")
    old = client.all_images["deep-node:debian12"].id
    monkeypatch.setattr(host, "local_certificates", lambda: ["PEM"])
    assert image.ensure(client, DEBIAN12, tmp_path / "log")
    assert client.all_images["deep-node:debian12"].id != old
    assert ("rmi", old) in client.calls


def test_a_replaced_image_stays_while_a_node_runs_it(
    builder: Builder, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image.ensure(client, DEBIAN12, tmp_path / "log")
    client.create_container("deep-node:debian12", name="deep-local-node1", labels={})
    monkeypatch.setattr(host, "local_certificates", lambda: ["PEM"])
    assert image.ensure(client, DEBIAN12, tmp_path / "log")
    assert [what for what, _ in client.calls if what == "rmi"] == []


def test_a_failed_build_leaves_neither_image_nor_files(builder: Builder, client: Any, tmp_path: Path) -> None:
    builder.error = DeepError("mmdebstrap failed")
    with pytest.raises(DeepError, match="mmdebstrap failed"):
        image.ensure(client, DEBIAN12, tmp_path / "log")
    assert client.all_images == {}
    assert left_over(tmp_path) == []


def test_what_a_killed_build_left_is_removed_by_the_next(builder: Builder, client: Any, tmp_path: Path) -> None:
    killed = tmp_path / "cache/images/build-debian12-killed"
    other = tmp_path / "cache/images/build-debian13-running"
    for folder in (killed, other):
        folder.mkdir(parents=True)
        (folder / "rootfs.tar").write_bytes(b"half")
    image.ensure(client, DEBIAN12, tmp_path / "log")
    assert left_over(tmp_path) == [other]


def test_a_refused_import_is_an_error_with_dockers_words(builder: Builder, client: Any, tmp_path: Path) -> None:
    client.api.import_image_from_file = lambda *_, **__: (_ for _ in ()).throw(
        api_error(500, "no space left on device")
    )
    with pytest.raises(DeepError, match="did not import") as refused:
        image.ensure(client, DEBIAN12, tmp_path / "log")
    assert refused.value.found == "no space left on device"


def test_an_import_that_made_nothing_is_an_error(builder: Builder, client: Any, tmp_path: Path) -> None:
    client.api.import_image_from_file = lambda *_, **__: '{"error":"unexpected EOF"}'
    with pytest.raises(DeepError, match="did not import") as refused:
        image.ensure(client, DEBIAN12, tmp_path / "log")
    assert refused.value.found
    assert "unexpected EOF" in refused.value.found


def test_a_full_disk_is_said_before_anything_is_downloaded(
    builder: Builder, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(DeepError, match=r"not enough space .* for a node image") as refused:
        image.ensure(client, DEBIAN12, tmp_path / "log")
    assert refused.value.next_step
    assert "DEEP_CACHE_DIR" in refused.value.next_step
    assert builder.argv == []


def test_a_missing_builder_names_the_package(
    builder: Builder, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DeepError, match="mmdebstrap") as refused:
        image.ensure(client, DEBIAN12, tmp_path / "log")
    assert refused.value.next_step
    assert "apt-get install mmdebstrap" in refused.value.next_step


def test_purge_removes_every_image_and_leftover(builder: Builder, client: Any, tmp_path: Path) -> None:
    for name in ("debian12", "debian13"):
        image.ensure(client, image.named(name), tmp_path / "log")
    assert image.remove(client) == ["deep-node:debian12", "deep-node:debian13"]
    assert client.all_images == {}
    assert not (tmp_path / "cache" / "images").exists()


def test_no_unit_is_both_disabled_and_masked() -> None:
    definition = yaml.safe_load((image.DEFINITION / "image.yml").read_text(encoding="utf-8"))
    assert not set(definition["disabled_units"]) & set(definition["masked_units"])
    assert definition["packages"] == sorted(set(definition["packages"]))
