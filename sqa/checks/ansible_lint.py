"""ansible-lint in the profile production, and the syntax of each playbook and role by ansible-playbook itself.

Offline, with a collection missing or a path off, ansible-lint ends with 0 having looked at little. So it is given every
file by name and has to say of each that it examined it, and each module that a task calls has to be there first.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sqa import ansible
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.model import Finding

EXAMINED = re.compile(r"Examining (?P<path>.+) of type [a-z0-9-]+$", re.MULTILINE)
RULES = re.compile(r"(?P<count>\d+)/\d+ rules included in the profile")
PROCESSED = re.compile(r"in (?P<count>\d+) files processed of \d+ encountered")
WITHOUT = re.compile(
    r"(?:Error loading plugin|Ignored exception from|[Cc]ollection \S+ (?:not found|is missing)).*$", re.MULTILINE
)
ORIGIN = re.compile(r"^Origin: (?P<path>.+?):(?P<line>\d+)(?::\d+)?$", re.MULTILINE)
ERROR = re.compile(r"^\[ERROR\]: (?P<text>.*)$", re.MULTILINE)

# Syntax is asked of ansible-playbook below, and each file is named, so no file has to be followed to others: what is
# found there would be dropped, and that costs two thirds of the time. Of an option within an option that a template
# fills, the rule args does not know the value; it would give up on the file.
LINTER = """
import os, sys
from ansiblelint import rules, runner
sys.path.insert(0, os.path.dirname(rules.__file__))
from args import ArgsRule  # under this name ansible-lint loads its rules

judge = ArgsRule._parse_failed_msg

def judged(self, *arguments, **named):
    try:
        return judge(self, *arguments, **named)
    except KeyError:
        return []

ArgsRule._parse_failed_msg = judged
runner.Runner._run_syntax_check_phase = lambda self, matches: []
runner.Runner.find_children = lambda self, lintable: []
from ansiblelint.__main__ import _run_cli_entrypoint
_run_cli_entrypoint()
"""

# Prints how many modules the tasks of the files call, and which of them are not there.
RESOLVER = """
import importlib.util, json, re, sys
import yaml
from ansible.plugins.loader import action_loader, init_plugin_loader, module_loader

NAME = re.compile(r"[a-z_][a-z0-9_]*([.][a-z_][a-z0-9_]*){2,}")
LISTS = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")

def calls(node):
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        for key, value in item.value if isinstance(item, yaml.MappingNode) else ():
            if NAME.fullmatch(str(key.value)):
                yield key.value, key.start_mark.line + 1
            elif key.value in LISTS:
                yield from calls(value)

def state(name):
    namespace, collection, _ = name.split(".", 2)
    if any(loader.find_plugin_with_context(name).resolved for loader in (module_loader, action_loader)):
        return "there"
    if namespace == "ansible" and collection in ("builtin", "legacy"):
        return "module"
    try:
        found = importlib.util.find_spec(f"ansible_collections.{namespace}.{collection}")
    except ImportError:
        found = None
    return "module" if found else "collection"

init_plugin_loader()
states, missing, count = {}, [], 0
for path in sys.argv[1:]:
    try:
        root = yaml.compose(open(path, encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        continue
    for name, line in calls(root):
        count += 1
        if name not in states:
            states[name] = state(name)
        if states[name] != "there":
            missing.append([path, line, name, states[name]])
print(json.dumps({"calls": count, "missing": missing}))
"""


def inspect(look: Look) -> Report:
    """Lint the files, and look at the syntax of the playbooks and roles among them."""
    texts = [name for name in look.files if name.endswith((".yml", ".yaml"))]
    with _collections(look) as (place, environment):
        unresolved = list(_unresolved(look, texts, environment))
        roles = {
            role: ansible.first_of(role, look.tree)
            for role in sorted({ansible.role_of(name) or "" for name in texts} - {""})
        }
        whole = {role: first for role, first in roles.items() if first in look.files}
        found, examined, rules = _linted(look, [role for role in roles if role != "."], environment)
        playbooks = [name for name in texts if ansible.is_playbook(look.tree, name)]
        syntax = list(_syntax(look, place, playbooks, whole, environment))
    # What is found in a role as a whole is kept where the file is named that it is found in, or that stands for it.
    of_roles = {name for name in look.tree.files if ansible.role_of(name) in roles} - set(look.files)
    made = [one for one in (_finding(look, one, roles) for one in found) if one.path not in of_roles]
    return Report([*made, *syntax, *unresolved], examined | {one.path for one in made}, {"rules": rules})


@contextmanager
def _collections(look: Look) -> Iterator[tuple[Path, dict[str, str]]]:
    """A place for this run, and what shows Ansible the repository as the collection that it is, if it is one."""
    place = look.scratch / look.root.name
    place.mkdir()
    try:
        galaxy = look.root / "galaxy.yml"
        if galaxy.is_file():
            named = _galaxy(galaxy)
            link = place / "ansible_collections" / named["namespace"] / named["name"]
            link.parent.mkdir(parents=True)
            link.symlink_to(look.root, target_is_directory=True)
        yield (
            place,
            {
                "PYTHONHASHSEED": "0",  # which of several wrong options is told of
                "ANSIBLE_COLLECTIONS_PATH": str(place),
                "ANSIBLE_ROLES_PATH": str(look.root / "roles"),
                "ANSIBLE_HOME": str(place / "home"),
                "ANSIBLE_LOCAL_TEMP": str(place / "tmp"),
            },
        )
    finally:
        shutil.rmtree(place)


def _galaxy(path: Path) -> dict[str, str]:
    try:
        named = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: _word(named[key]) for key in ("namespace", "name")}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise InconclusiveError("galaxy.yml: no namespace and name of a collection; correct it") from None


def _word(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", text):
        raise ValueError(text)
    return text


def _unresolved(look: Look, names: Iterable[str], environment: Mapping[str, str]) -> Iterator[Finding]:
    """Modules that are not there; raises ``InconclusiveError`` where the whole collection is not."""
    said = look.run("python", "-c", RESOLVER, *names, statuses=(0,), **environment).json()
    absent = sorted({name for _, _, name, what in said["missing"] if what == "collection"})
    if absent:
        raise InconclusiveError(
            f"collections of {len(absent)} modules are not in the tool's environment: {', '.join(absent[:5])}; "
            "a task that calls such a module cannot be examined"
        )
    for path, line, name, _ in said["missing"]:
        yield look.finding(path, line, "unresolved-module", f"There is no module {name}")


def _linted(look: Look, roles: list[str], environment: Mapping[str, str]) -> tuple[list[dict[str, Any]], set[str], int]:
    """What ansible-lint finds, the files that it says it has examined, and how many rules it has."""
    said = look.run(
        "python", "-c", LINTER, "--offline", "--nocolor", "--strict", "--profile=production", "--project-dir=.", "-vv",
        "--format=json", "--", *look.files, *roles,
        statuses=(0, 2), **environment,
    )  # fmt: skip
    without = WITHOUT.search(said.stderr)
    if without:
        raise InconclusiveError(f"ansible-lint did not look at all: {without[0].replace(f'{look.root}/', '')[:300]}")
    processed, rules = PROCESSED.search(said.stderr), RULES.search(said.stderr)
    wanted = len(look.files) + len(roles)
    if not processed or not rules or int(processed["count"]) < wanted:
        raise InconclusiveError(
            f"ansible-lint looked at too little (found: {processed['count'] if processed else 'no summary'}; "
            f"needed: {wanted} files)"
        )
    found = said.json()
    if said.status and not found:
        raise InconclusiveError(f"ansible-lint ended with {said.status} and named no violation")
    return found, {one["path"] for one in EXAMINED.finditer(said.stderr)}, int(rules["count"])


def _finding(look: Look, one: Mapping[str, Any], roles: Mapping[str, str]) -> Finding:
    place = one["location"]
    line = (place.get("lines") or {}).get("begin") or place["positions"]["begin"]["line"]
    line = line["line"] if isinstance(line, dict) else line
    path = str(place["path"]).rstrip("/")
    level = "error" if one["severity"] in ("blocker", "critical", "major") else "warning"
    return look.finding(
        roles.get(path, path), 0 if path in roles else line, one["check_name"], one["description"], level
    )


def _syntax(
    look: Look, place: Path, playbooks: list[str], roles: Mapping[str, str], environment: Mapping[str, str]
) -> Iterator[Finding]:
    """What ansible-playbook refuses: of a playbook itself, of a role by a playbook that does nothing but import it."""
    asked = {name: name for name in playbooks}
    for role, first in roles.items():
        if first.endswith("/main.yml") and "tasks/" in first:
            made = place / f"{role.replace('/', '_')}.yml"
            play = {"hosts": "localhost", "tasks": [{"ansible.builtin.import_role": {"name": str(look.root / role)}}]}
            made.write_text(yaml.safe_dump([play]), encoding="utf-8")
            asked[str(made)] = first
    if not asked or not _refused(look, list(asked), environment):
        return
    for path, name in asked.items():  # it stops at the first that it refuses
        refused = _refused(look, [path], environment)
        if refused:
            text = ERROR.search(refused)
            origin = ORIGIN.search(refused)
            where = origin and origin["path"].removeprefix(f"{look.root}/")
            why = text["text"] if text else refused.strip().splitlines()[0]
            line = int(origin["line"]) if origin and where == name else 0
            why = why.replace(f"{look.root}/", "").replace(f"{place}/", "") + (
                f" (in {where}:{origin['line']})" if origin and not line else ""
            )
            yield look.finding(name, line, "syntax-check", why)


def _refused(look: Look, playbooks: list[str], environment: Mapping[str, str]) -> str:
    """Why ansible-playbook refuses the playbooks; empty where it does not."""
    argv = ("--syntax-check", "--inventory", "localhost,", *playbooks)
    said = look.run("ansible-playbook", *argv, statuses=(0, 1, 2, 4), **environment)
    return said.stderr + said.stdout if said.status else ""


CHECK = Check(
    name="ansible-lint",
    title="Ansible in the profile production",
    inspect=inspect,
    files=(
        "playbooks/**/*.y*ml",
        "**/tasks/**/*.y*ml",
        "**/handlers/**/*.y*ml",
        "**/group_vars/**/*.y*ml",
        "**/host_vars/**/*.y*ml",
        "**/molecule/**/*.y*ml",
        "roles/*/defaults/**/*.y*ml",
        "roles/*/vars/**/*.y*ml",
        "roles/*/meta/**/*.y*ml",
        "/defaults/*.y*ml",
        "/vars/*.y*ml",
        "/meta/*.y*ml",
        "/galaxy.yml",
        "/plugins/*/*.py",
        "!/plugins/module_utils/",
    ),
    selects=ansible.is_playbook,
    canary=Canary(
        "no-changed-when",
        bad={
            "playbooks/bad.yml": "---\n- name: Run\n  hosts: all\n  tasks:\n"
            "    - name: Say\n      ansible.builtin.command: id\n"
        },
        good={"playbooks/good.yml": "---\n- name: Run\n  hosts: all\n  tasks: []\n"},
    ),
    tool="ansible-lint",
    configuration=(
        "/.ansible-lint",
        "/.ansible-lint.yml",
        "/.ansible-lint.yaml",
        "/.config/ansible-lint.yml",
        "/.config/ansible-lint.yaml",
        "/.ansible-lint-ignore",
        "/.config/ansible-lint-ignore.txt",
        "/.yamllint",
        "/.yamllint.yml",
        "/.yamllint.yaml",
        "/ansible.cfg",
        "/galaxy.yml",
        "/meta/runtime.yml",
        "/CHANGELOG*",
        "/changelogs/changelog.y*ml",
    ),
    support=("/.gitignore", "/plugins/**/*.py", "!/plugins/modules/"),
    scope="file",
    related=ansible.related,
    split=True,
    seconds=120,
    leaves=("/.ansible/", "__pycache__/"),
    takes={},
)
