"""A site with Jenkins, for the tests of its roles: what they render and refuse there."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import yaml

from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks
from tests.unit.container_programs import need

ROLE = "jenkins"
SEED = "0123456789abcdef" * 4
CONTROLLER, AGENT = "ci1.site.example", "ci2.site.example"
NEEDED = yaml.safe_load((role_path(ROLE) / "files" / "plugins.yaml").read_text())["plugins"]
LOCK = [{"name": one["artifactId"], "version": one["source"]["version"], "sha256": "a" * 64} for one in NEEDED]
CLIENT = {"name": "jenkins", "kind": "confidential", "flows": ["code"]}
FACTS: dict[str, Any] = {
    "distribution": "Debian", "distribution_version": "13", "distribution_major_version": "13", "os_family": "Debian",
    "architecture": "x86_64", "memtotal_mb": 8192, "deephdc": {"listening": [], "packages": [], "cgroup_version": 2},
}  # fmt: skip


class Hosts:
    """A site with an IAM, Jenkins and one agent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        groups = {"iam": "iam1.site.example", "pki": "iam1.site.example", ROLE: CONTROLLER, "jenkins_agents": AGENT}
        hosts = {name: {"ansible_host": f"192.0.2.{i}"} for i, name in enumerate(sorted(set(groups.values())), 11)}
        children: dict[str, Any] = {group: {"hosts": {name: {}}} for group, name in groups.items()}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
        self.folder = folder

    def key(self, name: str) -> Path:
        """The public half of an ssh key, made at its first use: ``host``, or ``agent_key`` of the controller."""
        path = self.folder.parent / name
        if not path.exists():
            argv = [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", str(path)]
            subprocess.run(argv, check=True)
        return path.with_suffix(".pub")

    def site(self, facts: dict[str, Any] | None = None, **settings: Any) -> SiteVariables:
        """The inventory with the site's own ``settings``, of hosts with these ``facts``."""
        given = {"site_name": "site", "site_domain": "site.example", "iam_seed": SEED, "jenkins_plugins": LOCK}
        extra = {**given, "iam_clients": [CLIENT], **settings}
        found = SiteVariables([repo_root() / "inventories" / "common", self.folder], extra=extra)
        found.give_facts({**FACTS, **(facts or {})})
        return found

    def rendered(self, template: str, **settings: Any) -> str:
        """A template of role jenkins, as its tasks write it on the controller."""
        site = self.site(**settings)
        read = {"results": [{"item": AGENT, "content": base64.b64encode(self.key("host").read_bytes()).decode()}]}
        variables = site.variables(CONTROLLER, ROLE, {"jenkins_host_keys": read, **settings})
        return site.render_file(role_path(ROLE) / "templates" / template, variables)

    def configuration(self, **settings: Any) -> dict[str, Any]:
        """What Jenkins reads at its start."""
        return dict(yaml.safe_load(self.rendered("jenkins.yaml.j2", **settings)))

    def refusals(self, role: str, facts: dict[str, Any] | None = None, **settings: Any) -> str:
        """What the prechecks of a role say against its host; empty where they let it pass."""
        host = CONTROLLER if role == ROLE else AGENT
        verdicts = list(prechecks(self.site(facts, **settings), host, role))
        assert verdicts
        assert None not in verdicts, "a check could not be worked out"
        problems = [problem for verdict in verdicts for problem in verdict or []]
        assert all(problem["host"] == host and problem["next_step"] for problem in problems)
        return "\n".join(str(problem) for problem in problems)
