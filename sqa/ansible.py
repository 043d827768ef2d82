"""Which files of a repository are Ansible's, and which others decide on what is found in one of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import cached_property

from sqa.tree import Tree, select

PARTS = ("tasks", "handlers", "defaults", "vars", "meta")
ROLE = re.compile(rf"^(?:(?P<folder>(?:.*/)?roles/[^/]+)/)?(?:{'|'.join(PARTS)})/.+\.ya?ml$")
PLAY = re.compile(r"^- (?:\w.*\n(?:  .*\n)*?  )?(?:hosts|(?:ansible\.builtin\.)?import_playbook):", re.MULTILINE)
OF_COLLECTION = re.compile(r"\w+\.\w+\.(?P<name>\w+)")
MODULE = re.compile(r"^(?:.*/)?plugins/modules/(?P<name>[a-z0-9_]+)\.py$")
# How a playbook, a list of tasks or a role names others. What is named while it runs (include_...) decides on nothing.
FILE = re.compile(r"\bimport_(?:playbook|tasks):\s*(?:\n\s+file:\s*)?[\"']?(?P<path>[^\s\"'#,}]+)")
NAME = re.compile(
    r"^\s*(?:-\s*)?(?:(?:role|name):\s*)?[\"']?(?:\w+\.\w+\.)?(?P<name>\w+)[\"']?\s*(?:#.*)?$", re.MULTILINE
)
ANY_ROLE = re.compile(r"\bimport_role:(?:\s*\{|(?:\s*\n\s+\w+:.*)*?)\s*name:\s*[\"']?\{\{")
KEY = re.compile(r"(?P<name>[a-z0-9_]+):(?=\s|$)", re.MULTILINE)


def role_of(name: str) -> str | None:
    """The folder of the role that a file is of: ``roles/iam``, ``.`` where the repository is a role; else nothing."""
    found = ROLE.match(name)
    return (found["folder"] or ".") if found else None


def first_of(role: str, tree: Tree) -> str:
    """The file of a role that stands for the whole of it."""
    files = _graph(tree).roles[role]
    return next((name for name in files if name.endswith("tasks/main.yml")), files[0])


def is_playbook(tree: Tree, name: str) -> bool:
    """Whether a file, whatever its name, holds plays."""
    return name.endswith((".yml", ".yaml")) and _graph(tree).names(name).plays


def related(tree: Tree, name: str) -> frozenset[str]:
    """Files that decide on what is found in this one: its role's, those it is put together of, modules they call."""
    return _graph(tree).related(name) - {name}


class _Names:
    """What a file names."""

    def __init__(self, text: str) -> None:
        self.plays = bool(PLAY.search(text))
        self.files = tuple(one["path"] for one in FILE.finditer(text))
        leads = self.plays or "import_role" in text or "dependencies:" in text
        self.roles = frozenset(one["name"] for one in NAME.finditer(text)) if leads else frozenset()
        self.any_role = bool(ANY_ROLE.search(text))
        self.keys = frozenset(one["name"] for one in KEY.finditer(text))


class _Graph:
    """What leads to what in a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.all = frozenset(tree.files)
        self.modules = {found["name"]: name for name in tree.files if (found := MODULE.match(name))}
        self._names: dict[str, _Names] = {}
        self._related: dict[tuple[str, ...], frozenset[str]] = {}

    @cached_property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The files of each role."""
        found: dict[str, list[str]] = {}
        for name in self.tree.files:
            role = role_of(name)
            if role:
                found.setdefault(role, []).append(name)
        return {role: tuple(names) for role, names in found.items()}

    def names(self, name: str) -> _Names:
        """What a file names; nothing where it is no YAML."""
        if name not in self._names:
            is_text = name.endswith((".yml", ".yaml"))
            text = (self.tree.root / name).read_text(encoding="utf-8", errors="replace") if is_text else ""
            self._names[name] = _Names(text)
        return self._names[name]

    def related(self, name: str) -> frozenset[str]:
        """The file and everything that decides on what is found in it."""
        start = self.roles.get(role_of(name) or "", (name,))
        if start not in self._related:
            reached: set[str] = set()
            waiting = list(start)
            while waiting:
                one = waiting.pop()
                if one not in reached:
                    reached.add(one)
                    waiting += self._led_to(one)
            keys = frozenset[str]().union(*(self.names(one).keys for one in reached))
            self._related[start] = frozenset(reached | {self.modules[key] for key in keys & self.modules.keys()})
        return self._related[start]

    def _led_to(self, name: str) -> Iterator[str]:
        names = self.names(name)
        folder = posixpath.dirname(name)
        for path in names.files:
            of_collection = OF_COLLECTION.fullmatch(path)
            if of_collection and not path.endswith((".yml", ".yaml")):
                yield from select(self.tree.files, [f"/playbooks/{of_collection['name']}.y*ml"])
            elif "{" in path:  # made while the file is read: any beside it
                yield from select(self.tree.files, [f"/{folder}/"])
            elif (target := posixpath.normpath(posixpath.join(folder, path))) in self.all:
                yield target
        for role, files in self.roles.items() if names.roles or names.any_role else ():
            if names.any_role or posixpath.basename(role) in names.roles:
                yield from files


def _graph(tree: Tree) -> _Graph:
    """Made once for a tree, as its list of files is, and kept with it."""
    kept = vars(tree)
    if "_ansible" not in kept:
        kept["_ansible"] = _Graph(tree)
    graph: _Graph = kept["_ansible"]
    return graph
