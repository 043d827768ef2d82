"""Lookup and module: what a role asks for is what the node gets, verified and in its place."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.response
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import yaml

from plugins.module_utils.artifact_files import ArtifactError, Installer, parse_checksums
from plugins.module_utils.artifact_spec import Declarations, Site, SpecError, specification
from plugins.modules import artifact
from testbed.artifacts.declaration import load_all
from testbed.artifacts.serve import make_server
from testbed.paths import repo_root

CONTENT = b"#!/bin/sh\necho tool\n"
MIRROR = Site(["mirror", "package"], "http://mirror.example:8080/", "/opt/deephdc", "x86_64")
UPSTREAM = Site(["upstream", "package"], "", "/opt/deephdc", "x86_64")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Web:
    """Addresses and what they hold, and what was asked for."""

    def __init__(self, **pages: bytes) -> None:
        self.pages = {f"http://site/{name.replace('__', '.')}": content for name, content in pages.items()}
        self.asked: list[str] = []

    def __call__(self, url: str) -> BinaryIO:
        self.asked.append(url.rsplit("/", 1)[-1])
        return io.BytesIO(self.pages[url])


def entry(folder: Path, name: str = "tool", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "src": f"http://site/{name}",
        "dest": str(folder / "bin" / name),
        "mode": "0755",
        "copy": False,
        **changes,
    }


def spec(folder: Path, *entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "tool", "version": "1.0", "source": "mirror", "directory": str(folder / "opt" / "tool" / "1.0"),
        "checksums_url": "http://site/SHA256SUMS", "files": list(entries) or [entry(folder)], **changes,
    }  # fmt: skip


def web(**pages: bytes) -> Web:
    sums = "".join(f"{sha256(content)}  {name.replace('__', '.')}\n" for name, content in pages.items())
    return Web(SHA256SUMS=sums.encode(), **pages)


def spoil(stored: Path, placed: Path, damage: str) -> None:
    match damage:
        case "truncate":
            os.truncate(stored, 4)
        case "remove":
            stored.unlink()
        case "overwrite":
            stored.write_bytes(b"x" * len(CONTENT))
        case "mode":
            stored.chmod(0o600)
        case _:
            placed.unlink()
            placed.write_text("other", encoding="utf-8")


def install(wanted: dict[str, Any], site: Web, *, check: bool = False) -> Installer:
    installer = Installer(wanted, site, check)
    installer.run()
    return installer


def test_file_is_downloaded_verified_and_linked(tmp_path: Path) -> None:
    done = install(spec(tmp_path), web(tool=CONTENT))
    stored, placed = tmp_path / "opt" / "tool" / "1.0" / "tool", tmp_path / "bin" / "tool"
    assert (done.downloaded, done.placed) == (["tool"], [str(placed)])
    assert stored.read_bytes() == CONTENT
    assert stored.stat().st_mode & 0o7777 == 0o755
    assert placed.readlink() == stored


def test_second_run_changes_nothing_and_downloads_only_the_hashes(tmp_path: Path) -> None:
    install(spec(tmp_path), web(tool=CONTENT))
    site = web(tool=CONTENT)
    done = install(spec(tmp_path), site)
    assert not done.changed
    assert site.asked == ["SHA256SUMS"]


def test_check_mode_says_what_would_change_and_writes_nothing(tmp_path: Path) -> None:
    done = install(spec(tmp_path), web(tool=CONTENT), check=True)
    assert (done.downloaded, done.placed) == (["tool"], [str(tmp_path / "bin" / "tool")])
    assert not list(tmp_path.iterdir())
    install(spec(tmp_path), web(tool=CONTENT))
    assert not install(spec(tmp_path), web(tool=CONTENT), check=True).changed


@pytest.mark.parametrize("damage", ["truncate", "remove", "overwrite", "mode", "link"])
def test_damage_on_the_node_is_repaired(tmp_path: Path, damage: str) -> None:
    install(spec(tmp_path), web(tool=CONTENT))
    stored, placed = tmp_path / "opt" / "tool" / "1.0" / "tool", tmp_path / "bin" / "tool"
    spoil(stored, placed, damage)
    assert install(spec(tmp_path), web(tool=CONTENT)).changed
    assert placed.read_bytes() == CONTENT
    assert stored.stat().st_mode & 0o7777 == 0o755
    assert not install(spec(tmp_path), web(tool=CONTENT)).changed


def test_new_version_is_linked_and_the_old_one_stays(tmp_path: Path) -> None:
    install(spec(tmp_path), web(tool=CONTENT))
    newer = spec(tmp_path, version="1.1", directory=str(tmp_path / "opt" / "tool" / "1.1"))
    assert install(newer, web(tool=b"new")).changed
    assert (tmp_path / "bin" / "tool").read_bytes() == b"new"
    assert (tmp_path / "opt" / "tool" / "1.0" / "tool").read_bytes() == CONTENT


def test_damaged_download_names_file_hashes_and_address_and_keeps_the_old_file(tmp_path: Path) -> None:
    install(spec(tmp_path), web(tool=CONTENT))
    site = Web(SHA256SUMS=f"{sha256(b'new')}  tool\n".encode(), tool=b"damaged")
    with pytest.raises(ArtifactError) as failure:
        install(spec(tmp_path), site)
    for fact in ("tool", sha256(b"damaged"), sha256(b"new"), "http://site/tool"):
        assert fact in str(failure.value)
    assert (tmp_path / "bin" / "tool").read_bytes() == CONTENT
    assert sorted(path.name for path in (tmp_path / "opt" / "tool" / "1.0").iterdir()) == ["tool"]


def test_file_without_a_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no hash of tool in http://site/SHA256SUMS"):
        install(spec(tmp_path), Web(SHA256SUMS=b"", tool=CONTENT))
    with pytest.raises(ArtifactError, match="neither a hash nor a checksum_url"):
        install(spec(tmp_path, checksums_url=""), Web(tool=CONTENT))


def test_remains_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "opt" / "tool" / "1.0"
    folder.mkdir(parents=True)
    (folder / ".tmp-half").write_text("x", encoding="utf-8")
    install(spec(tmp_path), web(tool=CONTENT))
    assert [path.name for path in folder.iterdir()] == ["tool"]


def test_copied_file_is_no_link_and_is_idempotent(tmp_path: Path) -> None:
    wanted = spec(tmp_path, entry(tmp_path, copy=True, mode="0644"))
    install(wanted, web(tool=CONTENT))
    placed = tmp_path / "bin" / "tool"
    assert not placed.is_symlink()
    assert placed.stat().st_mode & 0o7777 == 0o644
    assert not install(wanted, web(tool=CONTENT)).changed
    placed.write_bytes(b"other")
    assert install(wanted, web(tool=CONTENT)).placed == [str(placed)]
    assert placed.read_bytes() == CONTENT


def test_file_without_a_place_is_only_stored(tmp_path: Path) -> None:
    done = install(spec(tmp_path, entry(tmp_path, dest="")), web(tool=CONTENT))
    assert (done.downloaded, done.placed) == (["tool"], [])
    assert not (tmp_path / "bin").exists()


def test_directory_in_the_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin" / "tool").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="is a directory"):
        install(spec(tmp_path), web(tool=CONTENT))


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            content.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


def members(folder: Path) -> dict[str, Any]:
    common = {"src": "http://site/all.tgz", "checksum_url": "http://site/SHA256SUMS"}
    files = [entry(folder, name, member=f"bin/{name}", **common) for name in ("one", "two")]
    return spec(folder, *files, source="upstream", checksums_url="")


def test_archive_is_fetched_once_for_its_members_and_not_again(tmp_path: Path) -> None:
    site = web(all__tgz=archive("bin/one", "bin/two"))
    assert install(members(tmp_path), site).downloaded == ["one", "two"]
    assert site.asked == ["SHA256SUMS", "all.tgz"]
    assert (tmp_path / "bin" / "two").read_text(encoding="utf-8") == "bin/two"
    again = web(all__tgz=archive("bin/one", "bin/two"))
    assert not install(members(tmp_path), again).changed
    assert again.asked == ["SHA256SUMS"]


def test_damaged_member_is_taken_from_the_archive_again(tmp_path: Path) -> None:
    pages = {"all__tgz": archive("bin/one", "bin/two")}
    install(members(tmp_path), web(**pages))
    (tmp_path / "opt" / "tool" / "1.0" / "two").write_text("damaged", encoding="utf-8")
    assert install(members(tmp_path), web(**pages)).downloaded == ["two"]
    assert (tmp_path / "bin" / "two").read_text(encoding="utf-8") == "bin/two"


def test_absent_member_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"all\.tgz has no member bin/two"):
        install(members(tmp_path), web(all__tgz=archive("bin/one")))
    assert not [path for path in (tmp_path / "opt" / "tool" / "1.0").iterdir() if path.name.startswith(".tmp-")]


def test_a_redirection_away_from_https_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer: Any = urllib.response.addinfourl(io.BytesIO(b""), Message(), "http://example.org/tool", 200)
    monkeypatch.setattr(artifact, "open_url", lambda *_, **__: answer)
    fetch = artifact.make_fetch({"timeout": 1, "attempts": 2, "validate_certs": True})
    with pytest.raises(artifact.ArtifactError, match="found: a redirection to http:"):  # type: ignore[attr-defined]
        fetch("https://example.org/tool")
    assert fetch("http://example.org/tool") is answer


def test_checksum_formats_of_the_module() -> None:
    digest = "A" * 64
    assert parse_checksums(f"{digest}\n") == {"": digest.lower()}
    assert parse_checksums(f"{digest} *./x/tool\n") == {"tool": digest.lower()}


# The lookup


def test_mirror_has_the_same_layout_as_the_store() -> None:
    found = specification(Declarations(), "kubernetes", MIRROR)
    version = load_all()["kubernetes"].version
    assert found["checksums_url"] == f"http://mirror.example:8080/kubernetes/{version}/SHA256SUMS"
    assert [file["name"] for file in found["files"]] == ["kubeadm", "kubectl", "kubelet"]
    assert found["files"][0]["src"] == f"http://mirror.example:8080/kubernetes/{version}/kubeadm"
    assert found["directory"] == f"/opt/deephdc/kubernetes/{version}"


def with_hashes(folder: Path, name: str, text: str) -> Site:
    """A site whose control machine has these hashes of an artefact."""
    place = folder / "sums" / name / load_all()[name].version
    place.mkdir(parents=True)
    (place / "SHA256SUMS").write_text(text, encoding="utf-8")
    return dataclasses.replace(MIRROR, checksums=str(folder / "sums"))


def test_the_control_machine_says_what_the_mirror_has_to_send(tmp_path: Path) -> None:
    found = specification(Declarations(), "crane", with_hashes(tmp_path, "crane", f"{'a' * 64}  crane\n"))
    assert (found["checksums_url"], found["files"][0]["sha256"]) == ("", "a" * 64)


def test_a_mirror_that_was_exchanged_with_its_hashes_is_refused(tmp_path: Path) -> None:
    site = web(crane=b"evil")
    found = specification(Declarations(), "crane", with_hashes(tmp_path, "crane", f"{sha256(CONTENT)}  crane\n"))
    found["directory"] = str(tmp_path / "opt")
    found["files"][0] |= {"src": "http://site/crane", "dest": str(tmp_path / "bin" / "crane")}
    with pytest.raises(ArtifactError, match=f"found sha256 {sha256(b'evil')}, needed {sha256(CONTENT)}"):
        install(found, site)
    assert site.asked == ["crane", "crane"]
    assert not (tmp_path / "bin").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no hash of crane .*found none in .*/crane/.*needed: a line"),
        (None, "SHA256SUMS cannot be read .*No such"),
    ],
)
def test_missing_hashes_are_said_with_what_to_do(tmp_path: Path, text: str | None, message: str) -> None:
    site = with_hashes(tmp_path, "etcd" if text is None else "crane", text or "")
    with pytest.raises(SpecError, match=f"artifact_checksums: .*{message}.*Next: deep artifacts build"):
        specification(Declarations(), "crane", site)


@pytest.mark.parametrize("field", ["url", "checksum_url"])
def test_upstream_has_to_prove_who_it_is(tmp_path: Path, field: str) -> None:
    text = (repo_root() / "artifacts" / "crane.yml").read_text(encoding="utf-8")
    (tmp_path / "crane.yml").write_text(text.replace(f"    {field}: https:", f"    {field}: http:"), encoding="utf-8")
    with pytest.raises(SpecError, match=rf"sources\.upstream\.{field} .found http://.*needed: an https address"):
        specification(Declarations(str(tmp_path)), "crane", UPSTREAM)


def test_upstream_addresses_are_complete_and_verifiable() -> None:
    for name, item in load_all().items():
        if item.sources.upstream is None:
            continue
        for file in specification(Declarations(), name, UPSTREAM, [file.name for file in item.files])["files"]:
            assert file["src"].startswith("https://")
            assert "{" not in file["src"] + file.get("checksum_url", "") + file.get("member", "")
            assert file.get("checksum_url", "https://").startswith("https://")
            assert bool(file.get("checksum_url") or file.get("sha256")) != item.sources.upstream.checksum_by_site


def test_what_the_site_has_seen_is_what_calico_has_to_be(tmp_path: Path) -> None:
    for site in (MIRROR, UPSTREAM):
        said = dataclasses.replace(site, checksums=str(tmp_path), sha256="b" * 64)
        found = specification(Declarations(), "calico", said)
        assert found["files"][0]["sha256"] == "b" * 64
    unsaid = specification(Declarations(), "calico", UPSTREAM) | {"directory": str(tmp_path)}
    with pytest.raises(ArtifactError, match="neither a hash nor a checksum_url"):
        install(unsaid, Web())


@pytest.mark.parametrize("site", [MIRROR, UPSTREAM])
def test_images_that_are_not_built_are_named_with_their_publisher(site: Site) -> None:
    found = specification(Declarations(), "flannel", site)
    assert found["files"] == []
    assert {image["name"]: image["upstream"] for image in found["images"]} == {
        "flannel": "ghcr.io/flannel-io/flannel",
        "flannel-cni-plugin": "ghcr.io/flannel-io/flannel-cni-plugin",
    }
    assert found["images"][0]["tag"] == f"v{load_all()['flannel'].version}"


def test_architecture_of_the_nodes_is_respected() -> None:
    arm = Site(["upstream"], "", "/opt/deephdc", "aarch64")
    kubectl = specification(Declarations(), "kubernetes", arm, ["kubectl"])["files"][0]
    assert "/linux/arm64/" in kubectl["src"]
    assert specification(Declarations(), "crane", arm)["files"][0]["src"].endswith("_Linux_arm64.tar.gz")


def test_packages_are_the_production_source_of_the_toolkit() -> None:
    found = specification(Declarations(), "nvidia-container-toolkit", UPSTREAM)
    assert (found["source"], found["files"]) == ("package", [])
    assert set(found["packages"]) == {"Debian", "RedHat"}


def test_images_name_tags_files_and_references() -> None:
    images = {image["name"]: image for image in specification(Declarations(), "images", MIRROR)["images"]}
    kubernetes = load_all()["kubernetes"].version
    assert images["kube-apiserver"]["tag"] == f"v{kubernetes}"
    assert images["kube-apiserver"]["file"] == "kube-apiserver.tar"
    assert images["toolbox"]["upstream"] == ""
    assert not specification(Declarations(), "images", UPSTREAM)["files"]


@pytest.mark.parametrize(
    ("name", "site", "only", "message"),
    [
        ("kubernettes", MIRROR, None, "no artefact is called kubernettes .*needed: one of .*kubernetes"),
        ("kubernetes", MIRROR, ["kubeleet"], "has no file kubeleet .*kubelet"),
        ("kubernetes", Site(["mirror"], "", "/opt", "x86_64"), None, "found artifact_mirror empty"),
        (
            "gpu-simulator",
            UPSTREAM,
            None,
            "none of the site's sources .*found artifact_sources upstream, package; needed: one of mirror",
        ),
        ("kubernetes", Site(["mirrors"], "http://x", "/opt", "x86_64"), None, "unknown source .found mirrors"),
        ("kubernetes", Site([], "", "/opt", "x86_64"), None, "found artifact_sources empty"),
    ],
)
def test_requests_that_cannot_be_met_are_explained(name: str, site: Site, only: list[str] | None, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        specification(Declarations(), name, site, only)


def test_file_that_is_no_declaration_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.yml").write_text("- list\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"odd\.yml: no declaration"):
        Declarations(str(tmp_path)).load("odd")


# Through ansible itself, as a role uses it


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    version = load_all()["crane"].version
    folder = tmp_path / "mirror" / "crane" / version
    folder.mkdir(parents=True)
    (folder / "crane").write_bytes(CONTENT)
    (folder / "SHA256SUMS").write_text(f"{sha256(CONTENT)}  crane\n", encoding="utf-8")
    with make_server(tmp_path / "mirror", "127.0.0.1", 0, quiet=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def play(folder: Path, tasks: list[dict[str, Any]], *options: str, **variables: Any) -> tuple[int, str, dict[str, Any]]:
    """Run ``tasks`` on this host; exit status, output and results by task name."""
    book = folder / "play.yml"
    book.write_text(
        yaml.safe_dump(
            [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}]
        ),
        encoding="utf-8",
    )
    environment = {
        **os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }  # fmt: skip
    playbook = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent)) or "ansible-playbook"
    done = subprocess.run(
        [playbook, "-i", "localhost,", str(book), *options],
        cwd=repo_root(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    begin = done.stdout.find("{\n")
    report = json.JSONDecoder().raw_decode(done.stdout[begin:])[0] if begin >= 0 else {"plays": []}
    results = {task["task"]["name"]: task["hosts"]["localhost"] for item in report["plays"] for task in item["tasks"]}
    return done.returncode, done.stdout + done.stderr, results


def test_role_installs_by_lookup_and_module(tmp_path: Path, mirror: str) -> None:
    declarations = tmp_path / "declarations"
    declarations.mkdir()
    text = (repo_root() / "artifacts" / "crane.yml").read_text(encoding="utf-8")
    (declarations / "crane.yml").write_text(text.replace("/usr/local/bin/", f"{tmp_path}/bin/"), encoding="utf-8")
    variables = {
        "address": mirror, "artifact_mirror": "http://{{ address }}", "artifact_sources": ["mirror", "package"],
        "artifact_dir": str(tmp_path / "opt"), "artifact_declarations": str(declarations),
    }  # fmt: skip
    wanted = {"spec": "{{ lookup('deephdc.testbed.artifact', 'crane') }}"}
    tasks = [
        {"name": "first", "deephdc.testbed.artifact": wanted},
        {"name": "second", "deephdc.testbed.artifact": wanted},
        {
            "name": "version",
            "ansible.builtin.debug": {"msg": "{{ lookup('deephdc.testbed.artifact_version', 'crane') }}"},
        },
    ]
    status, output, results = play(tmp_path, tasks, "--check", **variables)
    assert status == 0, output
    assert results["first"]["changed"]
    assert not (tmp_path / "opt").exists()
    status, output, results = play(tmp_path, tasks, **variables)
    assert status == 0, output
    assert (results["first"]["changed"], results["second"]["changed"]) == (True, False)
    assert results["first"]["version"] == results["version"]["msg"] == load_all()["crane"].version
    assert results["first"]["files"] == ["crane"]
    assert (tmp_path / "bin" / "crane").read_bytes() == CONTENT
    folder = with_hashes(tmp_path, "crane", f"{'a' * 64}  crane\n").checksums
    status, output, _ = play(tmp_path, tasks[:1], **variables, artifact_checksums=folder)
    assert status != 0
    assert f"found sha256 {sha256(CONTENT)}, needed {'a' * 64}" in output


def test_failures_reach_the_user_of_a_role(tmp_path: Path) -> None:
    nothing = {"spec": "{{ lookup('deephdc.testbed.artifact', 'gpu-simulator') }}"}
    status, output, _ = play(
        tmp_path, [{"name": "t", "deephdc.testbed.artifact": nothing}], artifact_sources=["upstream", "package"]
    )
    assert status != 0
    assert "comes from none of the site's sources" in output
    absent = {"spec": "{{ lookup('deephdc.testbed.artifact', 'pause', files=['pause']) }}"}
    status, output, _ = play(
        tmp_path, [{"name": "t", "deephdc.testbed.artifact": absent}],
        artifact_sources=["mirror"], artifact_mirror=f"file://{tmp_path}/absent", artifact_dir=str(tmp_path / "opt"),
    )  # fmt: skip
    assert status != 0
    assert f"cannot fetch file://{tmp_path}/absent/pause/" in output
    packages = {"spec": "{{ lookup('deephdc.testbed.artifact', 'nvidia-container-toolkit') }}"}
    status, output, _ = play(
        tmp_path, [{"name": "t", "deephdc.testbed.artifact": packages}], artifact_sources=["package"]
    )
    assert status != 0
    assert "facts were not gathered" in output
    assert "Debian or RedHat" in output


def packed(**members: str) -> bytes:
    """An archive with the members ``{name: text}``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


OLD = packed(**{"old.py": "a", "both.py": "a"})


def archive_spec(folder: Path) -> dict[str, Any]:
    return spec(folder, entry(folder, "tool.tgz", dest="", unpack="program"))


def test_an_archive_is_unpacked_once_and_exchanged_as_a_whole(tmp_path: Path) -> None:
    program = tmp_path / "opt" / "tool" / "1.0" / "program"
    assert install(archive_spec(tmp_path), web(tool__tgz=OLD), check=True).changed
    assert not program.exists()
    first = install(archive_spec(tmp_path), web(tool__tgz=OLD))
    assert first.placed == [str(program)]
    assert program.stat().st_mode & 0o777 == 0o755
    assert not install(archive_spec(tmp_path), web(tool__tgz=OLD)).changed
    assert install(archive_spec(tmp_path), web(tool__tgz=packed(**{"both.py": "b"}))).placed == [str(program)]
    assert {path.name: path.read_text(encoding="utf-8") for path in program.iterdir()} == {"both.py": "b"}
    assert not [path for path in program.parent.iterdir() if path.name.startswith(".tmp-")]


def test_a_folder_that_is_gone_or_half_unpacked_is_made_again(tmp_path: Path) -> None:
    site = web(tool__tgz=packed(**{"one.py": "a"}))
    install(archive_spec(tmp_path), site)
    program = tmp_path / "opt" / "tool" / "1.0" / "program"
    program.rename(program.with_name(".tmp-killed"))
    assert install(archive_spec(tmp_path), site).placed == [str(program)]
    assert (program / "one.py").exists()
    assert not program.with_name(".tmp-killed").exists()


def test_an_archive_that_names_other_places_is_refused(tmp_path: Path) -> None:
    site = web(tool__tgz=packed(**{"inner/../../other": "x"}))
    with pytest.raises(ArtifactError, match=r"inner/\.\./\.\./other: a link, or a place outside"):
        install(archive_spec(tmp_path), site)
    assert not list(tmp_path.rglob("other"))


def test_a_program_of_python_is_compiled_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.module_utils.artifact_files.PYTHON", sys.executable)
    install(archive_spec(tmp_path), web(tool__tgz=packed(**{"__main__.py": "", "wrong.py": "("})))
    program = tmp_path / "opt" / "tool" / "1.0" / "program"
    assert [path.name.split(".")[0] for path in (program / "__pycache__").iterdir()] == ["__main__"]
