"""Checkov: insecure settings in Ansible tasks, Dockerfiles and Kubernetes manifests, by its built-in rules.

It says nothing of a file in which it finds nothing, and passes over one that it cannot read. So each file has to be
readable first, and beside them it is given samples with a defect, of which it has to find every one.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from sqa import ansible
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.model import Finding
from sqa.tree import Tree, select

DOCKERFILES = ("Dockerfile*", "*.Dockerfile", "*.dockerfile", "Containerfile*")
MANIFEST = re.compile(r"^kind:\s*\w+", re.MULTILINE)
TASKS = "- name: x\n  ansible.builtin.uri:\n    url: https://x.example\n    validate_certs: {}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: x}\nspec:\n  containers:\n    - {name: x, image: x}\n"
# Rules that take every URL without https for a wrong one, also one that a template fills.
OF_URLS = ("CKV2_ANSIBLE_1", "CKV2_ANSIBLE_2")
# By framework: a sample of that kind, where it has to lie, and a rule that it breaks.
SAMPLES: dict[str, tuple[str, str, str]] = {
    "ansible": ("tasks/main.yml", TASKS.format("false"), "CKV_ANSIBLE_1"),
    "dockerfile": ("Dockerfile", "FROM debian:12\n", "CKV_DOCKER_2"),
    "kubernetes": ("pod.yaml", POD, "CKV_K8S_20"),
}


def is_manifest(tree: Tree, name: str) -> bool:
    """Whether a file holds objects of Kubernetes."""
    if not name.endswith((".yml", ".yaml")):
        return False
    text = (tree.root / name).read_text(encoding="utf-8", errors="replace")
    return text.find("apiVersion:") >= 0 and bool(MANIFEST.search(text))


def selects(tree: Tree, name: str) -> bool:
    """Playbooks and manifests, wherever they are."""
    return ansible.is_playbook(tree, name) or is_manifest(tree, name)


def inspect(look: Look) -> Report:
    """Examine the files together with the samples."""
    _readable(look)
    place = look.scratch / look.root.name
    try:
        samples = {}
        for framework, (name, text, rule) in SAMPLES.items():
            path = place / framework / name
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
            samples[str(path)] = (framework, rule)
        reports = _run(look, list(samples))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    failed = [one for report in reports for one in report["results"]["failed_checks"]]
    found = {(posixpath.realpath(one["file_abs_path"]), one["check_id"]) for one in failed}
    for sample, (framework, rule) in samples.items():
        if (posixpath.realpath(sample), rule) not in found:
            raise InconclusiveError(f"Checkov does not find {rule} in a sample that has it: it did not run {framework}")
    findings = [made for one in failed if (made := _finding(look, one))]
    docker = len(select(look.files, DOCKERFILES))
    manifests = sum(is_manifest(look.tree, name) for name in look.files)
    work = {"Dockerfiles": docker, "manifests": manifests, "Ansible files": len(look.files) - docker - manifests}
    return Report(sorted(set(findings)), look.files, work)


def _finding(look: Look, one: Mapping[str, Any]) -> Finding | None:
    name = posixpath.relpath(posixpath.realpath(one["file_abs_path"]), posixpath.realpath(look.root))
    if name not in look.files or one["check_id"] in look.settings.get("skip", ()):
        return None
    first, last = one["file_line_range"]
    if one["check_id"] in OF_URLS and "http://" not in "".join(
        look.text(name).splitlines(keepends=True)[first - 1 : last]
    ):
        return None
    return look.finding(name, first, one["check_id"], f"{one['check_name']} ({one['resource']})")


def _readable(look: Look) -> None:
    for name in look.files:
        if name.endswith((".yml", ".yaml")):
            try:
                list(yaml.compose_all(look.text(name), Loader=yaml.CSafeLoader))
            except yaml.YAMLError as broken:
                raise InconclusiveError(f"{name}: no YAML: {' '.join(str(broken).split())[:200]}; correct it") from None


def _run(look: Look, samples: Iterable[str]) -> list[dict[str, Any]]:
    said = look.run(
        "checkov", "--framework", *SAMPLES, "--skip-download", "--compact", "--quiet", "--output=json",
        "--file", *look.files, *samples, statuses=(0, 1),
    ).json()  # fmt: skip
    reports: list[dict[str, Any]] = said if isinstance(said, list) else [said]
    for report in reports:
        unread = report.get("results", {}).get("parsing_errors") or []
        if "results" not in report or unread:
            raise InconclusiveError(
                f"Checkov could not read {len(unread)} files: {', '.join(sorted(unread)[:3]) or 'no results'}"
            )
    return reports


CHECK = Check(
    name="checkov",
    title="Insecure settings in infrastructure as code",
    inspect=inspect,
    criteria=("QC.Sec02",),
    files=("**/tasks/**/*.y*ml", "**/handlers/**/*.y*ml", *DOCKERFILES),
    selects=selects,
    canary=Canary(
        "CKV_ANSIBLE_1",
        bad={"tasks/main.yml": TASKS.format("false")},
        good={"tasks/main.yml": TASKS.format("true")},
    ),
    tool="checkov",
    takes={"skip": list},
    seconds=25,
)
