"""Run ansible-lint and refuse a result that proves nothing.

Offline, with a collection missing or a path off, ansible-lint can end with 0 having looked at nothing. So three things
must hold: it reports no violation, it processed at least every Ansible file that the checkout has, and every module
named in those files can be resolved by the Ansible that runs here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.loader import action_loader, init_plugin_loader, module_loader
from ansible.utils.collection_loader import AnsibleCollectionConfig

ROOT = Path(__file__).resolve().parent.parent
# What ansible-lint takes for Ansible content without being told.
PATTERNS = (
    "playbooks/*.yml",
    "roles/*/tasks/**/*.yml",
    "roles/*/handlers/*.yml",
    "roles/*/defaults/*.yml",
    "roles/*/vars/*.yml",
    "roles/*/meta/*.yml",
    "extensions/molecule/*/*.yml",
)
PROCESSED = re.compile(r"in (\d+) files processed of (\d+) encountered")
MODULE = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*){2,}")
TASK_LISTS = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")


@dataclass(frozen=True)
class Verdict:
    """What one run found: the problems, as lines, and how many files it looked at."""

    problems: list[str]
    processed: int

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def expected_files(root: Path) -> list[Path]:
    """Every Ansible file of the checkout that must have been looked at."""
    return sorted(path for pattern in PATTERNS for path in root.glob(pattern))


class _Loader(yaml.SafeLoader):  # pylint: disable=too-many-ancestors # PyYAML's way
    """Reads a playbook without decrypting or evaluating anything: unknown tags become ``None``."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def modules_in(path: Path) -> Iterator[str]:
    """The fully qualified names of the modules that the tasks of a file call."""
    yield from _modules(_Loader(path.read_text(encoding="utf-8")).get_single_data())


def _modules(node: Any) -> Iterator[str]:
    for item in node if isinstance(node, list) else []:
        if not isinstance(item, dict):
            continue
        yield from (key for key in item if isinstance(key, str) and MODULE.fullmatch(key))
        for name in TASK_LISTS:
            yield from _modules(item.get(name))


def unresolved(modules: set[str]) -> list[str]:
    """Those of ``modules`` that are neither a module nor an action of the installed collections."""
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()
    return sorted(
        name
        for name in modules
        if not (
            module_loader.find_plugin_with_context(name).resolved
            or action_loader.find_plugin_with_context(name).resolved
        )
    )


def run_linter(root: Path) -> tuple[int, list[str], int]:
    """Exit status, violations as lines, and number of processed files of ansible-lint on ``root``."""
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    argv = [str(binaries / "ansible-lint"), "--offline", "--nocolor", "--format", "json"]
    done = subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, check=False)
    try:
        issues = json.loads(done.stdout or "[]")
    except json.JSONDecodeError:
        return done.returncode or 2, [f"unreadable output: {done.stdout[:200]!r} {done.stderr[-500:]}"], 0
    counts = PROCESSED.search(done.stderr)
    return done.returncode, [_line(issue) for issue in issues], int(counts.group(1)) if counts else 0


def _line(issue: dict[str, Any]) -> str:
    location = issue.get("location", {})
    begin = location.get("lines", {}).get("begin") or location.get("positions", {}).get("begin", {}).get("line", 0)
    return f"{location.get('path')}:{begin}: {issue.get('check_name')}: {issue.get('description')}"


def check(root: Path) -> Verdict:
    """The verdict on the checkout ``root``."""
    files = expected_files(root)
    if not files:
        return Verdict([f"no Ansible file found below {root.name}/ (needed: playbooks or roles)"], 0)
    problems = [f"module {name} cannot be resolved" for name in unresolved({m for f in files for m in modules_in(f)})]
    status, violations, processed = run_linter(root)
    problems += violations
    if processed < len(files):
        problems.append(f"ansible-lint looked at too few files (found: {processed}; needed: at least {len(files)})")
    if status and not violations:
        problems.append(f"ansible-lint ended with {status} and named no violation")
    return Verdict(problems, processed)


def main() -> int:
    """Check the checkout; exit status 1 with one line per problem."""
    os.chdir(ROOT)  # ansible.cfg of the checkout says where collections are
    verdict = check(ROOT)
    for problem in verdict.problems:
        print(problem)
    print(f"ansible-lint: {verdict.processed} files processed, {len(verdict.problems)} problems")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
