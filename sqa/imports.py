"""Which files of a repository a Python file imports, directly or through others, also from folders such as ``src``."""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import PurePosixPath

from sqa import scripts
from sqa.cache import Cache
from sqa.check import InconclusiveError
from sqa.tree import Tree

FORMAT = "2"  # raised whenever ``named`` finds other names, or ``code`` keeps something else
NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # the last where it is too deep for the parser


class Imports:
    """The imports among the files of one tree, read once and remembered by content.

    Modules are looked for in the root of the tree, then in the standard library, then in every other folder that has
    modules or packages in it, see ``roots``: where several have one of that name, each counts. Rather a file too many
    than a result that is out of date.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files = [name for name in tree.files if name.endswith((".py", ".pyi"))]
        self._present = set(self._files)
        self._from_root: dict[str, list[str]] = {}
        self._elsewhere: dict[str, list[str]] = {}
        for name in self._files:
            self._from_root.setdefault(_dotted(PurePosixPath(name)), []).append(name)
            start = self._start(name)
            if start != PurePosixPath():
                self._elsewhere.setdefault(_dotted(PurePosixPath(name).relative_to(start)), []).append(name)
        self._named: dict[str, list[str]] = {}
        self._codes: dict[str, str] = {}
        self._read([*self._files, *(name for name in tree.files if scripts.is_python(tree, name))])
        self._direct: dict[str, frozenset[str]] = {}
        self._closures: dict[str, frozenset[str]] = {}

    def closure(self, name: str) -> frozenset[str]:
        """Every other file of the tree that ``name`` imports, and those that these import."""
        if name not in self._closures:
            found: set[str] = set()
            waiting = [name]
            while waiting:
                new = self._imported(waiting.pop()) - found
                found |= new
                waiting += new
            self._closures[name] = frozenset(found - {name})
        return self._closures[name]

    def code(self, name: str) -> str:
        """A hash of what a file says to Python, see ``code``; raises ``InconclusiveError`` for one that has changed."""
        found = self._codes.get(self._tree.digest(name))
        if found is None:
            raise InconclusiveError(f"{name} was changed while it was looked at; run this again")
        return found

    def _imported(self, name: str) -> frozenset[str]:
        if name not in self._direct:
            modules = self._named.get(name, ())
            found = {file for module in modules for file in self._meant(module, name)}
            self._direct[name] = frozenset(found | self._packages(name))
        return self._direct[name]

    def _meant(self, module: str, importer: str) -> Iterator[str]:
        """The files that a name can mean, with the packages on the way to them."""
        if module.startswith("."):
            module = _absolute(module, importer)
        parts = module.split(".")
        first = {f"{parts[0]}.py", f"{parts[0]}/__init__.py"} & self._present
        places = [self._from_root]
        if not first:
            places = [] if parts[0] in sys.stdlib_module_names else [self._from_root, self._elsewhere]
        for end in range(1, len(parts) + 1):
            for place in places:
                yield from place.get(".".join(parts[:end]), ())

    def _start(self, name: str) -> PurePosixPath:
        """The folder from which Python would import a file: the nearest one that is no package."""
        folders = PurePosixPath(name).parents
        return next(one for one in folders if one == PurePosixPath() or str(one / "__init__.py") not in self._present)

    @property
    def roots(self) -> list[str]:
        """The folders that modules are looked for in after the standard library, the root of the tree left out."""
        return sorted({str(self._start(name)) for name in self._files} - {"."})

    def _packages(self, name: str) -> set[str]:
        """What runs before the module itself: the ``__init__`` of each package that it is in."""
        inits = {f"{folder}/__init__.py" for folder in PurePosixPath(name).parents}
        return inits & self._present

    def _read(self, names: Iterable[str]) -> None:
        """Take of each file, a module or a script, which nobody imports: the names it imports, a hash of its code."""
        digests = {name: self._tree.digest(name) for name in names}
        cache = Cache()
        known = cache.get({_key(digest) for digest in digests.values()})
        new = {}
        for name, digest in digests.items():
            if _key(digest) not in known:
                text = (self._tree.root / name).read_bytes()
                digests[name] = hashlib.sha256(text).hexdigest()  # of what was read, should it have changed since
                new[_key(digests[name])] = [named(text), code(text)]
        if new:
            cache.put(new)
        known |= new
        for name, digest in digests.items():
            self._named[name], self._codes[digest] = known[_key(digest)]


def _key(digest: str) -> str:
    return f"imports {FORMAT} {sys.version_info[:2]} {digest}"  # what is Python depends on its version


def _parsed(text: bytes) -> ast.Module:
    """What a file says to Python; raises one of ``NO_PYTHON``. What Python warns of is the tools' to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def code(text: bytes) -> str:
    """A hash of what a module says to those that import it: every token, its column and which share a line.

    Comments and empty lines are left out, and with them the numbers of lines; comments that tell a tool something
    (``# type:``, ``# pylint:``) stay. Of what is not Python, the hash of all.
    """
    total, line = hashlib.sha256(), 0
    try:
        _parsed(text)  # first: the tokenizer itself fails on what is no text
        for token in tokenize.tokenize(io.BytesIO(text).readline):
            if token.type == tokenize.NL or (token.type == tokenize.COMMENT and ":" not in token.string):
                continue
            start = "\n" if token.start[0] != line else " "
            line = token.end[0]
            said = "" if token.type == tokenize.NEWLINE else f"{token.start[1]} {token.string}"
            total.update(f"{start}{token.type} {said}".encode())
    except (*NO_PYTHON, tokenize.TokenError):
        return hashlib.sha256(text).hexdigest()
    return total.hexdigest()


def named(text: bytes) -> list[str]:
    """The dotted names that a module imports, wherever in it, and what it takes of them by attribute.

    ``from a import b`` names ``a.b``, which may be a module; a relative one keeps its dots. Of what is not Python,
    nothing.
    """
    try:
        tree = _parsed(text)
    except NO_PYTHON:
        return []
    bound: dict[str, str] = {}
    found = set()
    for node in ast.walk(tree):
        for local, module in _bound(node):
            bound[local] = module
            found.add(module)
    for node in ast.walk(tree):
        root, *rest = _chain(node)
        if rest and root in bound:
            found.add(".".join([bound[root], *rest]))
    return sorted(found)


def _bound(node: ast.AST) -> Iterable[tuple[str, str]]:
    """By the name that a statement binds: the module, or the part of one, that it imports."""
    if isinstance(node, ast.Import):
        return [
            (one.asname or one.name.partition(".")[0], one.name if one.asname else name)
            for one in node.names
            for name in ([one.name] if one.asname else [one.name, one.name.partition(".")[0]])
        ]
    if isinstance(node, ast.ImportFrom):
        start = "." * node.level + (node.module or "")
        joint = "" if start.endswith(".") else "."
        return [
            (one.asname or one.name, start if one.name == "*" else f"{start}{joint}{one.name}") for one in node.names
        ]
    return []


def _chain(node: ast.AST) -> list[str]:
    """``a.b.c`` as its parts; of anything else one empty name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else [""]


def _absolute(module: str, importer: str) -> str:
    bare = module.lstrip(".")
    folders = PurePosixPath(importer).parents
    up = min(len(module) - len(bare), len(folders)) - 1
    return ".".join([*folders[up].parts, *([bare] if bare else [])])


def _dotted(path: PurePosixPath) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@lru_cache(maxsize=4)
def of(tree: Tree) -> Imports:
    """The imports of a tree, read once in a run."""
    return Imports(tree)


def closure(tree: Tree, name: str) -> Iterable[str]:
    """Every other file of ``tree`` that ``name`` imports, directly or not: a check's ``related``."""
    return of(tree).closure(name)


def code_of(tree: Tree, name: str) -> str:
    """What of a file decides on what is found in those that import it: a check's ``regards``."""
    return of(tree).code(name)
