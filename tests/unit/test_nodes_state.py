"""State, secrets, keys, inventory and profiles of a testbed: written whole, kept, readable by Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from testbed import files, inventory, profiles, secrets, state
from testbed.artifacts import api
from testbed.errors import DeepError
from testbed.nodes import Node, NodeState

ROOT = Path(__file__).resolve().parents[2]
NODES = [Node("node1", "198.18.0.11"), Node("node2", "198.18.0.12")]
STATES = [
    NodeState(n.name, n.address, "deep-node:debian12", f"c-{n.name}", "running", "running", (), "ssh-ed25519 K")
    for n in NODES
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path))
    return tmp_path / "testbeds" / "local"


def made(**changes: object) -> state.State:
    known = state.State(
        "local", "kubernetes", "debian12", 2, artifact_mirror="http://198.18.0.1:8480", control_path="/run/x"
    )
    for key, value in changes.items():
        setattr(known, key, value)
    return known


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_state_is_read_as_it_was_saved() -> None:
    made(phase="deploy", timings={"nodes": 1.5}).save()
    assert state.load("local") == made(phase="deploy", timings={"nodes": 1.5})
    assert state.names() == ["local"]


def test_there_is_no_state_before_the_first_up() -> None:
    assert state.load("local") is None
    with pytest.raises(DeepError, match="there is no testbed local") as refused:
        state.need("local")
    assert refused.value.next_step == "deep testbed up --name local"


def test_a_broken_state_says_how_to_start_over(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / state.FILE).write_text('{"name": "loc', encoding="utf-8")
    with pytest.raises(DeepError, match="cannot be read") as refused:
        state.load("local")
    assert refused.value.next_step == "deep testbed down --name local"


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a-", "a" * 31, "../x", "a b"])
def test_names_that_docker_or_dns_refuse_are_refused(name: str) -> None:
    with pytest.raises(DeepError, match="not a name"):
        state.check_name(name)


def test_a_second_command_is_told_who_works_on_the_testbed(folder: Path) -> None:
    with state.lock("local"):
        with (
            pytest.raises(DeepError, match="another command is working on testbed local") as refused,
            state.lock("local"),
        ):
            pass
        assert refused.value.found == f"process {os.getpid()}"
        with state.lock("other"):
            pass
    with state.lock("local"):
        pass


def test_the_lock_of_a_killed_command_is_free(folder: Path) -> None:
    script = "import os\nfrom testbed import state\nwith state.lock('local'):\n    os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert folder.with_name("local.lock").exists()
    with state.lock("local"):
        pass
    assert not folder.with_name("local.lock").exists()


def test_the_lock_stays_with_a_testbed_that_exists(folder: Path) -> None:
    with state.lock("local"):
        made().save()
    assert folder.with_name("local.lock").exists()


def test_a_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    assert files.write_atomic(target, "one", 0o600)
    assert not files.write_atomic(target, "one", 0o600)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            files.write_atomic(target, "two", 0o600)
    assert target.read_text(encoding="utf-8") == "one"
    assert mode(target) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_secrets_are_encrypted_private_and_kept(folder: Path) -> None:
    target, password = folder / "secrets.yml", folder / "password"
    assert secrets.ensure(target, password)
    first = secrets.read(target, password)
    assert set(first) == set(secrets.names()) >= {"registry_password"}
    assert len(first["registry_password"]) == 64
    assert target.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT;1.1;AES256")
    assert first["registry_password"] not in target.read_text(encoding="utf-8")
    assert (mode(target), mode(password)) == (0o600, 0o600)
    assert not secrets.ensure(target, password)
    assert secrets.read(target, password) == first


def test_two_sites_have_different_secrets(tmp_path: Path) -> None:
    for site in ("a", "b"):
        secrets.ensure(tmp_path / site / "secrets.yml", tmp_path / site / "password")
    a, b = (secrets.read(tmp_path / site / "secrets.yml", tmp_path / site / "password") for site in ("a", "b"))
    assert not set(a.values()) & set(b.values())


def test_a_new_secret_is_added_and_the_old_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, password = folder / "secrets.yml", folder / "password"
    secrets.ensure(target, password)
    old = secrets.read(target, password)
    monkeypatch.setitem(secrets.SECRETS, "another", lambda: "value")
    assert secrets.ensure(target, password)
    assert secrets.read(target, password) == old | {"another": "value"}


def test_a_wrong_password_is_an_error_and_overwrites_nothing(folder: Path) -> None:
    target, password = folder / "secrets.yml", folder / "password"
    secrets.ensure(target, password)
    before = target.read_bytes()
    password.write_text("wrong\n", encoding="utf-8")
    with pytest.raises(DeepError, match="cannot be opened"):
        secrets.ensure(target, password)
    password.unlink()
    with pytest.raises(DeepError, match="cannot be opened") as refused:
        secrets.ensure(target, password)
    assert refused.value.found == f"no {password}"
    assert target.read_bytes() == before


# --- keys and inventory ----------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_ssh_accepts_it(folder: Path) -> None:
    public = inventory.ensure_key(folder)
    assert inventory.ensure_key(folder) == public
    assert mode(folder / inventory.KEY) == 0o600
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", folder / inventory.KEY], check=True, capture_output=True, text=True
    ).stdout
    assert derived.split()[:2] == public.split()[:2]


def test_a_key_whose_public_half_is_missing_is_made_again(folder: Path) -> None:
    inventory.ensure_key(folder)
    (folder / f"{inventory.KEY}.pub").unlink()
    public = inventory.ensure_key(folder)
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", folder / inventory.KEY], check=True, capture_output=True, text=True
    ).stdout
    assert derived.split()[1] == public.split()[1]


def ansible_inventory(folder: Path) -> dict[str, dict[str, object]]:
    program = Path(sys.executable).with_name("ansible-inventory")
    argv: list[Path | str] = [
        program,
        "-i",
        folder / "inventory",
        "--vault-password-file",
        folder / inventory.VAULT_PASSWORD,
        "--list",
    ]
    done = subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def test_ansible_reads_hosts_groups_and_secrets(folder: Path) -> None:
    inventory.ensure_key(folder)
    inventory.write(folder, made(), profiles.load("kubernetes"), NODES, STATES, 1)
    found = ansible_inventory(folder)
    assert found["kubernetes_control_plane"]["hosts"] == found["registry"]["hosts"] == ["node1"]
    assert found["kubernetes_node"]["hosts"] == found["gpu_simulated"]["hosts"] == ["node2"]
    node2 = found["_meta"]["hostvars"]["node2"]  # type: ignore[index]
    assert node2["ansible_host"] == "198.18.0.12"
    assert node2["kubernetes_cgroup_root"] == "/deep-local/node2"
    assert node2["artifact_mirror"] == "http://198.18.0.1:8480"
    assert node2["artifact_checksums"] == str(api.mirror_dir())
    assert node2["ansible_control_path_dir"] == "/run/x"
    assert "StrictHostKeyChecking=yes" in node2["ansible_ssh_common_args"]
    assert len(node2["registry_password"]) == 64
    assert (folder / inventory.KNOWN_HOSTS).read_text(encoding="utf-8").splitlines() == [
        "198.18.0.11,node1 ssh-ed25519 K",
        "198.18.0.12,node2 ssh-ed25519 K",
    ]


def test_version_2_needs_no_root_of_its_own(folder: Path) -> None:
    written = inventory.hosts(folder, made(), profiles.load("kubernetes"), NODES, 2)
    assert {host["kubernetes_cgroup_root"] for host in written["all"]["hosts"].values()} == {""}


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_names_groups_images_and_artefacts_that_exist(name: str) -> None:
    from testbed.artifacts.declaration import load_all  # pylint: disable=import-outside-toplevel # slow
    from testbed.image import releases  # pylint: disable=import-outside-toplevel # slow

    profile = profiles.load(name)
    common = yaml.safe_load((ROOT / "inventories/common/hosts.yml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(common)
    assert all(f"{group}:" in text for group in (*profile.first, *profile.others))
    assert profile.image in releases()
    assert set(profile.artifacts) <= set(load_all())
    assert profile.groups(1) == profile.first
    assert profile.groups(3) == profile.others


def test_an_unknown_profile_is_answered_with_the_known() -> None:
    with pytest.raises(DeepError, match="unknown profile") as refused:
        profiles.load("mesos")
    assert refused.value.needed == f"one of: {', '.join(profiles.names())}"


def test_a_profile_that_breaks_the_rules_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.yml").write_text("description: x\nimage: debian12\nnodes: none\nfirst: []\n", encoding="utf-8")
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    with pytest.raises(DeepError, match="profile bad is not valid") as refused:
        profiles.load("bad")
    assert refused.value.next_step == f"correct {tmp_path / 'bad.yml'}"
