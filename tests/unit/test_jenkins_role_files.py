"""Where Jenkins comes from, who gets into its agents, and its backups; with real files, archives and keys."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.module_utils.artifact_files import ArtifactError, Installer
from testbed.rendering import role_path
from tests.unit.container_programs import need
from tests.unit.jenkins_site import AGENT, CONTROLLER, ROLE, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path / "inventory")


# --- where it comes from ---


def colons(*primaries: str) -> str:
    """What gpg says of keys with these fingerprints, each with another key below it."""
    block = "pub:-:4096:1:ABC:1:::-:::scESC::::::23::0:\nfpr:::::::::{}:\nuid:-::::1::A::B:::::::::::0:\n"
    return "".join(
        block.format(one) + f"sub:-:4096:1:ABC:1::::::e::::::23:\nfpr:::::::::{'F' * 40}:\n" for one in primaries
    )


@pytest.mark.parametrize(("others", "trusted"), [([], True), (["A" * 40], False)])
def test_only_the_vendors_key_is_trusted(hosts: Hosts, others: list[str], trusted: bool) -> None:
    site = hosts.site()
    (block,) = (task for task in site.trusted_yaml(role_path(ROLE) / "tasks" / "repository.yml") if "block" in task)
    (task,) = (task for task in block["block"] if "ansible.builtin.assert" in task)
    wanted = "5E386EADB55F01504CAE8BCF7198F4B714ABFC68"
    for found, verdict in ((colons(wanted, *others), trusted), (colons("A" * 40), False), ("", False)):
        given = {**task["vars"], "jenkins_key": {"stdout": found, "rc": 0}, "ansible_check_mode": False}
        variables = site.variables(CONTROLLER, ROLE, given)
        assert site.holds(task["ansible.builtin.assert"]["that"], variables) is verdict


def test_both_packages_have_the_declared_version(hosts: Hosts) -> None:
    site = hosts.site()
    variables = site.variables(CONTROLLER, ROLE)
    artifact = site.render(variables["jenkins_artifact"], variables)
    assert artifact["packages"] == {
        "Debian": [f"jenkins={artifact['version']}"],
        "RedHat": [f"jenkins-{artifact['version']}-1"],
    }
    redhat = hosts.site({"distribution": "Rocky", "distribution_major_version": "9", "os_family": "RedHat"})
    variables = redhat.variables(CONTROLLER, ROLE)
    assert redhat.render(variables["jenkins_packages"], variables)[0] == "java-21-openjdk-headless"


def offered(folder: Path, name: str, version: str, content: bytes) -> dict[str, str]:
    """Put a plugin where the vendor has it; its entry in the lock."""
    (folder / name / version).mkdir(parents=True)
    (folder / name / version / f"{name}.hpi").write_bytes(content)
    return {"name": name, "version": version, "sha256": hashlib.sha256(content).hexdigest()}


def test_plugins_are_installed_by_their_hashes(hosts: Hosts, tmp_path: Path) -> None:
    lock = [
        offered(tmp_path / "offered", "git", "5.10.1", b"git"),
        offered(tmp_path / "offered", "junit", "1", b"junit"),
    ]
    files = yaml.safe_load(
        hosts.rendered("plugins.json.j2", jenkins_plugins=lock, jenkins_plugins_url="https://a.test")
    )
    assert files[0]["src"] == "https://a.test/git/5.10.1/git.hpi"
    spec = {"name": "jenkins-plugins", "version": "1", "directory": str(tmp_path / "plugins"), "files": files}

    def fetch(address: str) -> Any:
        return (tmp_path / "offered" / address.removeprefix("https://a.test/")).open("rb")

    Installer(spec, fetch).run()
    assert (tmp_path / "plugins" / "git.jpi").read_bytes() == b"git"
    files[1]["sha256"] = "0" * 64
    with pytest.raises(ArtifactError):
        Installer(spec, fetch).run()


def plugin(path: Path, manifest: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", manifest)


def lock(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = ["sh", str(role_path(ROLE) / "files" / "lock.sh"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_lock_says_version_and_hash_of_each_plugin(hosts: Hosts, tmp_path: Path) -> None:
    need("unzip")
    plugin(tmp_path / "git.jpi", "Manifest-Version: 1.0\r\nPlugin-Version: 5.10.1\r\nShort-Name: git\r\n")
    plugin(tmp_path / "oic-auth.jpi", "Plugin-Version: 4.718.ve731df6ca_88a_ (private)\n")
    found = yaml.safe_load(lock(str(tmp_path)).stdout)
    assert [(one["name"], one["version"]) for one in found["jenkins_plugins"]] == [
        ("git", "5.10.1"), ("oic-auth", "4.718.ve731df6ca_88a_"),
    ]  # fmt: skip
    sums = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.jpi")}
    assert {one["name"]: one["sha256"] for one in found["jenkins_plugins"]} == sums
    site = hosts.site(**found)
    assert site.argument_errors(ROLE, "main", site.variables(CONTROLLER, ROLE)) == []


def test_no_lock_is_made_of_something_else(tmp_path: Path) -> None:
    need("unzip")
    for arguments, said in (((), "found 0 arguments"), ((str(tmp_path),), "found no .jpi file"), (("/none",), "/none")):
        done = lock(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    plugin(tmp_path / "git.jpi", "Manifest-Version: 1.0\n")
    done = lock(str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "found no version in" in done.stderr


# --- agents ---


def test_only_jenkins_gets_into_an_agent(hosts: Hosts, tmp_path: Path) -> None:
    site = hosts.site()
    opening = {"content": base64.b64encode(hosts.key("agent_key").read_bytes()).decode()}
    variables = site.variables(AGENT, "jenkins_agent", {"jenkins_agent_opening": opening})
    tasks = site.trusted_yaml(role_path("jenkins_agent") / "tasks" / "account.yml")
    (files,) = (task["deephdc.testbed.files"]["files"] for task in tasks if "deephdc.testbed.files" in task)
    assert [entry for entry in files if "owner" in entry] == [], "what is root's cannot be changed by builds"
    line = site.render(files[1]["content"], variables)
    assert line.startswith('restrict,from="192.0.2.11" ssh-ed25519 ')
    (tmp_path / "authorized_keys").write_text(f"{line}\n")
    said = [
        subprocess.run([need("ssh-keygen"), "-l", "-f", str(path)], capture_output=True, text=True, check=True).stdout
        for path in (tmp_path / "authorized_keys", hosts.key("agent_key"))
    ]
    assert said[0].split()[1] == said[1].split()[1]


def test_the_key_that_was_made_is_not_made_again(hosts: Hosts) -> None:
    site = hosts.site()
    tasks = site.trusted_yaml(role_path(ROLE) / "tasks" / "agents.yml")
    (entry,) = (
        entry for task in tasks for entry in task.get("deephdc.testbed.files", {}).get("files", []) if "owner" in entry
    )  # fmt: skip
    key = hosts.key("agent_key").with_suffix("")
    look = tasks[1]["ansible.builtin.command"]["argv"]
    for mode, found in ((int(entry["mode"], 8), 0), (0o640, 255)):
        key.chmod(mode)
        argv = [str(key) if "agent_key" in word else word for word in look]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == found
    assert subprocess.run([*look[:-1], "/none"], capture_output=True, check=False).returncode == 255


# --- backup ---


def test_backup_holds_the_state_and_no_workspace(hosts: Hosts, tmp_path: Path) -> None:
    for name in ("jobs/workspace/config.xml", "secrets/master.key", "workspace/a/b", "plugins/git.jpi", "caches/x"):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(name)
    site = hosts.site(jenkins_home=str(tmp_path / "home"), jenkins_backup_work=str(tmp_path))
    (block,) = (task for task in site.trusted_yaml(role_path(ROLE) / "tasks" / "backup.yml") if "block" in task)
    (task,) = (task for task in block["block"] if "'--create'" in str(task))
    argv = site.render(task["ansible.builtin.command"]["argv"], site.variables(CONTROLLER, ROLE))
    subprocess.run(argv, check=True)
    listed = subprocess.run(["tar", "tzf", tmp_path / "state"], capture_output=True, text=True, check=True).stdout
    files = {line for line in listed.splitlines() if not line.endswith("/")}
    assert files == {"./jobs/workspace/config.xml", "./secrets/master.key"}
    secret = [one for one in block["block"] if "stdin" in one.get("ansible.builtin.command", {})]
    assert all(one["no_log"] for one in secret)


def restore(*arguments: object) -> int:
    argv = ["sh", str(role_path(ROLE) / "files" / "restore.sh"), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, check=False).returncode


def test_a_restore_exchanges_the_state_and_keeps_the_one_before(tmp_path: Path) -> None:
    home, archive = tmp_path / "home", tmp_path / "state"
    home.mkdir()
    (home / "config.xml").write_text("old")
    subprocess.run(["tar", "czf", archive, "--directory", home, "."], check=True)
    (home / "config.xml").write_text("new")
    account = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    archive_of_nothing = tmp_path / "damaged"
    archive_of_nothing.write_bytes(archive.read_bytes()[:40])
    assert restore("unpack", archive_of_nothing, home, account) != 0
    assert (home / "config.xml").read_text() == "new"
    assert restore("unpack", archive, home, account) == 0
    assert (home / "config.xml").read_text() == "new"
    assert restore("exchange", home) == 0
    assert ((home / "config.xml").read_text(), (tmp_path / "home.before" / "config.xml").read_text()) == ("old", "new")
    assert restore("exchange", home) == 0, "a second time changes nothing"
    assert (home / "config.xml").read_text() == "old"
    # Killed between the two renames.
    home.rename(tmp_path / "home.new")
    assert restore("exchange", home) == 0
    assert (home / "config.xml").read_text() == "old"
