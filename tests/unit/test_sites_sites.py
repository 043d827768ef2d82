"""Sites: listing, checking without hosts, secrets, and what deploy and verify need."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from testbed import secrets, site_check, sites
from testbed.cli.options import complete_site
from testbed.cli.site import app
from testbed.errors import DeepError
from testbed.paths import repo_root
from testbed.playbook import PlaybookResult

GOOD: dict[str, Any] = {
    "kubernetes_control_plane": ["cp1"],
    "kubernetes_node": ["gpu1"],
    "gpu_real": ["gpu1"],
    "pki": ["cp1"],
    "registry": ["cp1"],
}
# Sums of the keys that packages are verified with; they come from packages here.
KEYS = dict.fromkeys(["nvidia_driver_vendor_key_sha256", "nvidia_container_toolkit_key_sha256"], "a" * 64)
ADDRESSES = {"cp1": "192.0.2.11", "cp2": "192.0.2.12", "gpu1": "192.0.2.31", "lost": "192.0.2.99"}


class Sandbox:
    """A folder of inventories with the real ``common`` and one site, and a state folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(repo_root() / "inventories" / "common", root / "common")
        self.site({})

    def site(
        self, variables: dict[str, Any], groups: dict[str, Any] | None = None, extra_hosts: tuple[str, ...] = ()
    ) -> None:
        """Write the site ``here``."""
        groups = GOOD if groups is None else groups
        names = {name for members in groups.values() for name in members} | set(extra_hosts)
        content = {
            "all": {
                "hosts": {name: {"ansible_host": ADDRESSES[name]} for name in sorted(names)},
                "children": {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()},
            }
        }
        folder = self.root / "here" / "group_vars" / "all"
        folder.mkdir(parents=True, exist_ok=True)
        (self.root / "here" / "hosts.yml").write_text(yaml.safe_dump(content))
        known = {"site_name": "here", "site_domain": "here.example", **KEYS, **variables}
        (folder / "main.yml").write_text(
            yaml.safe_dump({key: value for key, value in known.items() if value is not None})
        )

    def problems(self, *, with_secrets: bool = True) -> list[str]:
        """What the check says, as ``host: message (found; needed)`` lines."""
        if with_secrets:
            sites.secrets("here")
        found = site_check.check("here", syntax=False)
        assert found["ok"] == (not found["problems"])
        return [f"{one['host'] or '-'}: {one['message']} next={one['next_step']}" for one in found["problems"]]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr(sites, "inventories", lambda: tmp_path / "inventories")
    monkeypatch.setattr(site_check, "inventories", lambda: tmp_path / "inventories")
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    (tmp_path / "inventories").mkdir()
    return Sandbox(tmp_path / "inventories")


def test_a_good_site_has_no_problem(sandbox: Sandbox) -> None:
    sites.secrets("here")
    found = site_check.check("here", syntax=False)
    assert found["problems"] == []
    assert found["ok"]
    assert found["hosts"] == 2
    assert found["checked"]["argument_specs"] > 5
    assert found["checked"]["prechecks"] > 5


@pytest.mark.parametrize(
    ("variables", "groups", "extra", "said"),
    [
        ({}, {**GOOD, "kubernetes_nodes": ["gpu1"]}, (), "-: unknown group next=correct hosts.yml"),
        ({}, GOOD, ("lost",), "lost: host in no group"),
        ({}, {**GOOD, "gpu_simulated": ["gpu1"]}, (), "gpu1: GPUs both real and simulated"),
        ({}, {}, (), "-: the site has no host"),
        (
            {},
            {**GOOD, "kubernetes_control_plane": ["cp1", "cp2"]},
            (),
            "cp1: kubernetes_control_plane: etcd cannot have a majority",
        ),
        ({"site_domain": None}, None, (), "cp1: common: common_site_domain: "),
        ({"gpu_sharing": "sliced"}, None, (), "gpu1: unknown way of sharing GPUs (found gpu_sharing sliced"),
        (
            {"gpu_sharing": "time_slicing", "gpu_sharing_replicas": "many"},
            None,
            (),
            "gpu1: GPUs cannot be shared like that (found gpu_sharing_replicas many",
        ),
        ({"kubernetes_swap_allowed": "perhaps"}, None, (), "cp1: kubernetes_node: "),
        ({"kubernetes_network_plugin": "weave"}, None, (), "value of kubernetes_network_kind must be one of"),
        ({"node_address": "gpu1.here.example"}, None, (), "gpu1: common: its address is not an IPv4 address"),
        (
            {"site_organisations": [{"name": "vo", "members": "vo"}]},
            None,
            (),
            'cp1: kubernetes_control_plane: organisation vo is not understood (found members: "vo", needed',
        ),
    ],
)
def test_what_is_wrong_is_told(
    sandbox: Sandbox, variables: dict[str, Any], groups: dict[str, Any] | None, extra: tuple[str, ...], said: str
) -> None:
    sandbox.site(variables, groups, extra)
    problems = sandbox.problems()
    assert any(said in problem for problem in problems), problems
    assert all("next=None" not in problem for problem in problems)


@pytest.mark.parametrize(
    ("task", "verdict"),
    [
        ({"that": "site_dns | length > 0"}, "has no len"),
        ({"that": "true", "loop": "{{ site_dns | list }}"}, "not iterable"),
        ({"that": "true", "when": "site_dns | length > 0"}, "has no len"),
        ({"that": "ansible_facts.site_dns | length > 0"}, None),
        ({"that": "true", "loop": "{{ ansible_facts.site_dns | list }}"}, None),
        ({"that": "true", "when": "ansible_facts.site_dns"}, None),
    ],
)
def test_what_a_check_cannot_work_with_is_no_matter_of_the_host(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: dict[str, str], verdict: str | None
) -> None:
    sandbox.site({"site_dns": 5})
    (tmp_path / "tasks").mkdir()
    rest = {key: value for key, value in task.items() if key != "that"}
    content = [{"name": "Check", "ansible.builtin.assert": {"that": task["that"]}, **rest}]
    (tmp_path / "tasks" / "precheck.yml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(site_check, "role_path", lambda _role: tmp_path)
    (found,) = site_check.prechecks(site_check.settings("here"), "cp1", "common")
    if verdict is None:
        assert found is None
    else:
        assert found is not None
        assert verdict in found[0]["message"]
        assert found[0]["next_step"] == "see roles/common/README.md"


def test_missing_secrets_are_told_and_made(sandbox: Sandbox) -> None:
    assert sandbox.problems(with_secrets=False) == ["-: secrets are missing next=deep site secrets here"]
    made = sites.secrets("here")
    assert made["made"]
    assert not sites.secrets("here")["made"]
    for file in (made["file"], made["password_file"]):
        assert Path(file).stat().st_mode & 0o777 == 0o600
    assert Path(made["file"]).read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT")
    values = secrets.read(Path(made["file"]), Path(made["password_file"]))
    assert not any(value in json.dumps(made) for value in values.values())
    assert sandbox.problems() == []


def test_production_vault_password_can_be_elsewhere(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "own"))
    assert sites.vault_password_file("here") == tmp_path / "own"
    # The testbed's own secrets are never opened with a production password.
    assert sites.vault_password_file("local", "x") == tmp_path / "state" / "testbeds" / "x" / "vault-password"


def test_inventory_arguments_are_in_order_of_precedence(sandbox: Sandbox, tmp_path: Path) -> None:
    shutil.copytree(repo_root() / "inventories" / "local", sandbox.root / "local")
    common, local = str(sandbox.root / "common"), str(sandbox.root / "local")
    assert sites.inventory_args("local", "x") == ["-i", common, "-i", local]
    generated = tmp_path / "state" / "testbeds" / "x" / "inventory"
    generated.mkdir(parents=True)
    (tmp_path / "state" / "testbeds" / "x" / "vault-password").write_text("x")
    password = ["--vault-password-file", str(tmp_path / "state" / "testbeds" / "x" / "vault-password")]
    assert sites.inventory_args("local", "x") == ["-i", common, "-i", local, "-i", str(generated), *password]
    assert sites.inventory_args("here") == ["-i", common, "-i", str(sandbox.root / "here")]


@pytest.mark.parametrize("call", [sites.inventory_args, sites.secrets, sites.play, sites.verify, site_check.check])
def test_unknown_site_is_a_wrong_usage(sandbox: Sandbox, call: Any) -> None:
    with pytest.raises(DeepError, match="no site nowhere") as caught:
        call("nowhere")
    assert caught.value.exit_code == 2
    assert caught.value.needed == "one of: here"


@pytest.mark.parametrize("call", [sites.play, sites.verify, sites.secrets])
def test_local_needs_a_testbed(sandbox: Sandbox, call: Any) -> None:
    shutil.copytree(repo_root() / "inventories" / "local", sandbox.root / "local")
    with pytest.raises(DeepError, match="there is no testbed other") as caught:
        call("local", name="other")
    assert caught.value.next_step == "deep testbed up --name other"


def test_syntax_errors_are_problems(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "site.yml").write_text("- hosts: all\n  tasks:\n    - nowhere.module.at_all:\n")
    monkeypatch.setattr(site_check, "repo_root", lambda: tmp_path)
    (found,) = site_check._syntax_problems("here", None)
    assert "nowhere.module.at_all" in found["found"]


def test_the_sites_of_the_project_are_listed() -> None:
    found = {site.name: site for site in sites.list_sites()}
    assert {"ifca", "local"} <= set(found)
    assert "common" not in found
    assert found["ifca"].hosts == 10
    assert not found["ifca"].simulated
    assert found["local"].simulated


def test_command_line(sandbox: Sandbox) -> None:
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert [site["name"] for site in listed["sites"]] == ["here"]
    assert "here" in runner.invoke(app, ["list"]).stdout
    assert json.loads(runner.invoke(app, ["secrets", "here", "--json"]).stdout)["ok"]
    assert "nothing was missing of iam_admin_secret, " in runner.invoke(app, ["secrets", "here"]).stdout
    assert runner.invoke(app, ["check"]).exit_code == 2
    assert isinstance(runner.invoke(app, ["check", "nowhere"]).exception, DeepError)
    assert complete_site("h") == ["here"]
    assert complete_site("x") == []


def test_check_on_the_command_line(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    problem = site_check.problem("no memory", host="node1", found="1 MiB", needed="2 MiB", next_step="buy some")
    result = {"ok": False, "site": "here", "hosts": 2, "problems": [problem], "checked": {"argument_specs": 7}}
    monkeypatch.setattr(site_check, "check", lambda _site, _name: result)
    failed = runner.invoke(app, ["check", "here"])
    assert failed.exit_code == 1
    assert "node1: no memory (found: 1 MiB, needed: 2 MiB)" in failed.stdout
    assert "next: buy some" in failed.stdout
    assert json.loads(runner.invoke(app, ["check", "here", "--json"]).stdout) == result
    result.update(ok=True, problems=[])
    passed = runner.invoke(app, ["check", "here"])
    assert (passed.exit_code, passed.stdout) == (0, "here: ok; 2 hosts; looked at 7 argument specs\n")


VERDICT = {
    "ok": False, "site": "local", "simulated": True, "started": "now", "seconds": 12.0, "passed": 0, "skipped": 1,
    "checks": [
        {"id": "gpu::one[node2]", "title": "One [GPU]", "outcome": "failed", "seconds": 1.0, "reason": "saw [two]"},
        {"id": "gpu::cuda", "title": "CUDA", "outcome": "skipped", "seconds": 0.0, "reason": "simulated"},
    ],
    "failures": [{"id": "gpu::one[node2]"}],
    "report": "/reports/1",
}  # fmt: skip


def test_verify_on_the_command_line(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "verify", lambda _site, **_options: VERDICT)
    shown = CliRunner().invoke(app, ["verify", "here"])
    assert shown.exit_code == 1
    for text in ("One [GPU] (node2)", "saw [two]", "simulated GPUs", "not ok, 1 failures", "/reports/1"):
        assert text in shown.stdout
    monkeypatch.setattr(sites, "verify", lambda _site, **_options: VERDICT | {"ok": True})
    assert CliRunner().invoke(app, ["verify", "here", "--json"]).exit_code == 0


@pytest.mark.parametrize(
    ("hosts", "status"),
    [({"cp1": {"ok": 9, "changed": 0}}, 0), ({"cp1": {"ok": 9, "changed": 2}}, 1), ({}, 1)],
    ids=["nothing", "something", "no host"],
)
def test_a_deployment_that_has_to_change_nothing(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, hosts: dict[str, dict[str, int]], status: int
) -> None:
    result = PlaybookResult("site.yml", ok=True, seconds=1.0, log=Path("x.log"), tasks=9, hosts=hosts)
    monkeypatch.setattr(sites, "play", lambda _site, **_options: result)
    assert CliRunner().invoke(app, ["deploy", "here"]).exit_code == 0
    shown = CliRunner().invoke(app, ["deploy", "here", "--unchanged"])
    assert shown.exit_code == status
    assert ("not as it should be" in shown.stdout) == bool(status)
    told = CliRunner().invoke(app, ["deploy", "here", "--unchanged", "--json"])
    assert json.loads(told.stdout)["ok"] is not bool(status)


def test_the_report_goes_where_it_is_wanted(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("def test_it() -> None:\n    pass\n")
    monkeypatch.setattr(
        sites,
        "suite_args",
        lambda _site, _name, report: [str(test), f"--junitxml={report}/junit.xml", "-p", "no:cacheprovider"],
    )
    output = tmp_path / "reports"
    output.mkdir()
    for name in ("verdict.json", "junit.xml", "other"):
        (output / name).write_text('{"ok": true}')
    with pytest.raises(DeepError, match="ended without a verdict"):  # one of an earlier run is none
        sites.verify("here", output=output, quiet=True)
    assert "test_it" in (output / "junit.xml").read_text()
    assert (output / "other").exists()
    monkeypatch.setattr(sites, "verify", lambda _site, **options: VERDICT | {"report": str(options["output"])})
    assert str(output) in CliRunner().invoke(app, ["verify", "here", "--output", str(output)]).stdout


LOOK = ["-p", "no:cacheprovider", "--collect-only", "-q"]


@pytest.mark.parametrize(
    ("limit", "hosts"),
    [("gpu1.ifca.example", {"gpu1"}), ("kubernetes_control_plane", {"cp1", "cp2", "cp3"}), ("gpu3*", {"gpu3"})],
)
def test_a_limit_selects_hosts_as_ansible_does(limit: str, hosts: set[str]) -> None:
    sources = [f"--site-inventory={source}" for source in sites.inventory_sources("ifca")]
    argv = [sys.executable, "-m", "pytest", "tests/acceptance/test_hosts.py", *LOOK, *sources, f"--limit={limit}"]
    shown = subprocess.run(argv, cwd=repo_root(), check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"\[(\w+)\.ifca", shown)) == hosts


def test_a_limit_without_a_host_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path))
    with pytest.raises(DeepError, match="--limit gpu99 matches no host: the site has cp1") as refused:
        sites.verify("ifca", limit="gpu99", quiet=True)
    assert refused.value.exit_code == 2


def test_a_suite_without_a_verdict_is_an_error(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "suite_args", lambda *_arguments: [__file__, *LOOK, "-k", "no_such_test"])
    with pytest.raises(DeepError, match="ended without a verdict") as caught:
        sites.verify("here", quiet=True)
    assert caught.value.exit_code == 1
    assert "no tests collected" in caught.value.message
