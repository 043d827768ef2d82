"""ansible-lint: what was planted is found where it is, however the files are grouped; what it cannot see is no pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqa import ansible
from sqa.model import Verdict
from sqa.tree import Tree
from tests.sqa.real_checks import places, run, write

PLAY = "---\n- name: Run\n  hosts: all\n"
SPECS = "---\nargument_specs:\n  main:\n    short_description: It\n    options: {}\n"
META = (
    "---\ngalaxy_info:\n  author: us\n  description: It\n  license: MIT\n  min_ansible_version: '2.17'\n"
    "  platforms:\n    - name: Debian\n      versions: [bookworm]\n"
)
MODULE = '#!/usr/bin/python\nfrom ansible.module_utils.basic import AnsibleModule\n\nAnsibleModule({"size": {}})\n'
FILES = {
    "galaxy.yml": "---\nnamespace: acme\nname: shop\nversion: 1.0.0\nreadme: README.md\nauthors: [us]\n",
    "playbooks/site.yml": PLAY + "  roles:\n    - role: acme.shop.web\n",
    "playbooks/clean.yml": PLAY + "  tasks: []\n",
    "playbooks/led_astray.yml": "---\n- name: Others\n  ansible.builtin.import_playbook: nowhere.yml\n",
    "other/run.yml": PLAY + "  tasks:\n    - name: Say\n      ansible.builtin.command: id\n",
    "inventories/local/hosts.yml": "---\nall:\n  hosts: {}\n",
    "roles/web/meta/main.yml": META,
    "roles/web/meta/argument_specs.yml": SPECS,
    "roles/web/tasks/main.yml": "---\n- name: Write\n  ansible.builtin.copy:\n    content: x\n    dest: /x\n",
    "roles/web/tasks/install.yml": (
        "---\n- name: Do it\n  acme.shop.it:\n    size: 1\n\n- name: Do\n  ansible.builtin.nowhere:\n"
    ),
    "roles/db/meta/main.yml": META,
    "roles/db/tasks/main.yml": "---\n- name: Lead astray\n  ansible.builtin.import_tasks: gone.yml\n",
    "plugins/modules/it.py": MODULE,
}
PLANTED = {
    ("playbooks/led_astray.yml", "syntax-check"),
    ("other/run.yml", "no-changed-when"),
    ("roles/web/tasks/main.yml", "risky-file-permissions"),
    ("roles/web/tasks/install.yml", "unresolved-module"),
    ("roles/db/tasks/main.yml", "syntax-check"),
    ("roles/db/meta/main.yml", "role-argument-spec"),
}


def test_what_was_planted_is_found_however_the_files_are_grouped(tmp_path: Path) -> None:
    config = {".ansible-lint": "---\nenable_list: [role-argument-spec]\nskip_list: ['galaxy', 'meta-runtime']\n"}
    root = write(tmp_path / "all" / "tree", {**FILES, **config})
    whole = run(root, "ansible-lint", jobs=1)
    assert {(path, rule.partition("[")[0]) for path, _, rule in places(whole)} >= PLANTED, whole.reasons
    assert "inventories/local/hosts.yml" not in {path for path, _, _ in places(whole)}
    assert (whole.verdict, whole.examined) == (Verdict.FAIL, whole.selected)
    assert whole.selected == len(FILES) - 1, "an inventory is no playbook"
    again = run(root, "ansible-lint")
    assert again.cached
    assert again.findings == whole.findings

    other = write(tmp_path / "pieces" / "tree", {**FILES, **config})
    for name in ("roles/web/tasks/install.yml", "playbooks/site.yml", "roles/db/tasks/main.yml"):
        run(other, "ansible-lint", frozenset({name}))
    pieced = run(other, "ansible-lint")
    assert not pieced.cached
    assert (pieced.findings, pieced.work) == (whole.findings, whole.work)


def test_a_change_reaches_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    tree = Tree(write(tmp_path, {**FILES, "roles/db/tasks/other.yml": "---\n"}))
    named = {name: ansible.related(tree, name) for name in tree.files}
    reached = {name for name, others in named.items() if "roles/web/tasks/main.yml" in others}
    assert reached == {"playbooks/site.yml", *(name for name in FILES if name.startswith("roles/web/"))} - {
        "roles/web/tasks/main.yml"
    }
    assert "plugins/modules/it.py" in named["roles/web/tasks/install.yml"]
    assert "roles/db/tasks/other.yml" in named["roles/db/tasks/main.yml"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"playbooks/a.yml": PLAY + "  tasks:\n    - name: Do\n      no.such.thing:\n"}, "no.such.thing"),
        ({"playbooks/a.yml": PLAY, ".ansible-lint": "---\nprofle: min\n"}, "ended with"),
        ({"playbooks/a.yml": PLAY, "galaxy.yml": "---\nname: x\n"}, "galaxy.yml"),
        # ansible-doc then refuses to list plug-ins, and ansible-lint goes on without the rule that asks it.
        ({"playbooks/a.yml": PLAY, "galaxy.yml": "---\nname: x\nnamespace: y\n"}, "Ignored exception"),
    ],
)
def test_what_it_cannot_see_is_no_pass(tmp_path: Path, files: dict[str, str], why: str) -> None:
    found = run(write(tmp_path / "tree", files), "ansible-lint")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]
    assert str(tmp_path) not in found.reasons[0]
