"""Syntax trees of Jenkinsfiles, made by the compiler of the Groovy that Jenkins embeds; nothing of a file is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.artifacts import api
from testbed.errors import CHECK_FAILED, DeepError

SCRIPT = Path(__file__).with_name("trees.groovy")
GROOVY = ("groovy", "groovy-all.jar")
# A short program: no second compiler, no second collector.
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss8m", "-Dgroovy.grape.enable=false")
AT = re.compile(r"\.? at line: \d+ column: \d+\. File: .*$")


@dataclass(frozen=True)
class Node:
    """A statement or an expression; ``line`` counts from 1.

    ``kind``: call, constant, text (with values in it), variable, property, list, map, closure, operation, declaration,
    choice, not, if, return, annotation, method, other. ``items``: operands, entries, or arguments without a name.
    ``named``: arguments with one, or entries of a map. ``block``: what stands in the braces after it, if anything.
    ``on``: whose method is called.
    """

    kind: str
    line: int
    name: str = ""
    value: Any = None
    on: Node | None = None
    items: tuple[Node, ...] = ()
    named: tuple[tuple[str, Node], ...] = ()
    block: tuple[Node, ...] | None = None
    otherwise: tuple[Node, ...] = ()
    parameters: tuple[str, ...] = ()

    @classmethod
    def made(cls, data: dict[str, Any]) -> Node:
        """A node from JSON."""
        block = data.get("block")
        return cls(
            kind=data["kind"],
            line=data["line"],
            name=data.get("name", ""),
            value=data.get("value"),
            on=cls.made(data["on"]) if data.get("on") else None,
            items=_nodes(data.get("items")),
            named=tuple((key, cls.made(one)) for key, one in data.get("named", ())),
            block=None if block is None else _nodes(block),
            otherwise=_nodes(data.get("otherwise")),
            parameters=tuple(data.get("parameters", ())),
        )

    def walk(self) -> Iterator[Node]:
        """The node and everything in it."""
        yield self
        inner = (*self.items, *(one for _, one in self.named), *(self.block or ()), *self.otherwise)
        for one in (self.on, *inner) if self.on else inner:
            yield from one.walk()

    def is_call(self, *names: str) -> bool:
        """Whether it is a call of one of these (of any where none is named) that is no method of an object."""
        return self.kind == "call" and self.on is None and bool(self.name) and (not names or self.name in names)


def _nodes(data: list[dict[str, Any]] | None) -> tuple[Node, ...]:
    return tuple(Node.made(one) for one in data or ())


@dataclass(frozen=True)
class Tree:
    """A file: what stands in it, or where and why the compiler could not read it."""

    path: Path
    statements: tuple[Node, ...] = ()
    methods: tuple[Node, ...] = ()
    annotations: tuple[Node, ...] = ()
    error: tuple[int, str] | None = None

    def walk(self) -> Iterator[Node]:
        """Everything in the file."""
        for one in (*self.statements, *self.methods, *self.annotations):
            yield from one.walk()


def read(paths: Sequence[Path]) -> list[Tree]:
    """The trees of files, in their order, by one start of Java; raises ``DeepError`` for a file that is not there."""
    if not paths:
        return []
    for path in paths:
        _refuse_unreadable(path)
    java = shutil.which("java")
    if java is None:
        raise DeepError("Java is not installed", needed="Java 11 or newer", next_step="make install")
    api.ensure([GROOVY[0]])
    jar = api.Store().file(*GROOVY)
    argv = [java, *JAVA_OPTIONS, "-cp", str(jar), "groovy.ui.GroovyMain", str(SCRIPT), *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, check=False, encoding="utf-8")
    if done.returncode != 0:
        raise DeepError(
            f"Groovy ended with {done.returncode}: {' '.join(done.stderr.split())[-300:]}",
            next_step="deep artifacts build --rehash groovy; then run the same command again", exit_code=CHECK_FAILED,
        )  # fmt: skip
    try:
        return [_tree(path, data) for path, data in zip(paths, json.loads(done.stdout), strict=True)]
    except RecursionError:
        raise DeepError(
            f"what stands in one of {len(paths)} files is nested too deeply", next_step="name one file at a time"
        ) from None


def _refuse_unreadable(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as missing:
        raise DeepError(f"{path}: no such file", next_step="name a Jenkinsfile") from missing
    except UnicodeDecodeError as broken:
        raise DeepError(
            f"{path} is no text", found=f"byte {broken.object[broken.start]:#x} at {broken.start}", needed="UTF-8",
            next_step="name a Jenkinsfile",
        )  from broken  # fmt: skip


def _tree(path: Path, data: dict[str, Any]) -> Tree:
    if error := data.get("error"):
        # The end of a file counts as a line of its own, and some messages say once more where they belong.
        last = len(path.read_text(encoding="utf-8").splitlines())
        said = AT.sub("", " ".join(error["message"].split())).replace("found ''", "found the end of the file")
        return Tree(path, error=(min(error["line"], last), said))
    return Tree(path, _nodes(data["statements"]), _nodes(data["methods"]), _nodes(data["annotations"]))
