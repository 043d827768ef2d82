"""Steps: in ``steps``, in ``post``, and, less strictly, in ``script``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.jenkins.jenkinsfile.arguments import Arguments, literal_type, similar
from pipelines.jenkins.jenkinsfile.syntax import syntax
from pipelines.jenkins.jenkinsfile.trees import Node, Tree

NO_AGENT = "needs an agent, and there is none here"


@dataclass(frozen=True)
class Variable:
    """A step of the shared library: numbers of arguments that it takes, and whether it needs an agent."""

    sizes: frozenset[int]
    node: bool


def library(files: Sequence[Tree]) -> dict[str, Variable]:
    """The steps that the files of ``vars`` define, by name."""
    known = syntax().steps
    return {
        file.path.stem: Variable(
            frozenset(len(method.parameters) for method in file.methods if method.name == "call"),
            any(one.is_call(*known) and known[one.name].node for one in file.walk()),
        )
        for file in files
    }


@dataclass(frozen=True)
class Steps:
    """Checks steps. ``methods``: of the file itself. ``strict``: every library that it loads is known."""

    arguments: Arguments
    variables: Mapping[str, Variable]
    methods: frozenset[str] = frozenset()
    strict: bool = True

    def check(self, statements: Sequence[Node], *, node: bool) -> None:
        """Hold statements against what steps may be; ``node``: they run on an agent."""
        for one in statements:
            if one.is_call():
                self._call(one, node)
            elif one.kind == "call":
                self.arguments.say(one, "methods of objects are called in script { } alone")
            else:
                self.arguments.say(one, "found other Groovy, needed a step; it belongs into script { }")

    def _call(self, call: Node, node: bool) -> None:
        say = self.arguments.say
        known = syntax().steps
        if call.name == "script":
            self._script(call, node)
        elif call.name == "parallel":
            self._parallel(call, node)
        elif call.name in syntax().refused_steps:
            say(call, f"{call.name} is no step here: {syntax().refused_steps[call.name]}")
        elif call.name in self.methods:
            pass
        elif call.name in self.variables:
            self._variable(call, self.variables[call.name], node)
        elif call.name in known:
            self.arguments.check(call, known[call.name])
            if known[call.name].node and not node:
                say(call, f"{call.name}: {NO_AGENT}")
            self.check(call.block or (), node=node or known[call.name].gives_node)
        elif self.strict:
            say(call, f"unknown step {call.name}{similar(call.name, [*known, *self.variables, 'script'])}")

    def _variable(self, call: Node, variable: Variable, node: bool) -> None:
        given = len(call.items) + bool(call.named) + (call.block is not None)
        if given not in variable.sizes:
            needed = " or ".join(map(str, sorted(variable.sizes))) or "no call at all"
            self.arguments.say(call, f"{call.name} of the shared library: found {given} arguments, needed {needed}")
        if variable.node and not node:
            self.arguments.say(call, f"{call.name}: {NO_AGENT}")
        self.check(call.block or (), node=node)

    def _parallel(self, call: Node, node: bool) -> None:
        """Branches as steps, which is what scripted pipelines have."""
        branches = [value for name, value in call.named if name != "failFast"]
        if (
            call.items
            or call.block is not None
            or any(literal_type(one) != "block" for one in branches)
            or not branches
        ):
            self.arguments.say(call, "parallel: needs named branches, each a block")
        for one in branches:
            self.check(one.block or (), node=node)

    def _script(self, call: Node, node: bool) -> None:
        if call.block is None or call.items or call.named:
            self.arguments.say(call, "script: needs a block and nothing else")
            return
        known = syntax().steps
        inner = [one for statement in call.block for one in statement.walk()]
        own = {one.items[0].name for one in inner if one.kind == "declaration"} | self.methods
        calls = [one for one in inner if one.is_call() and one.name not in own]
        node = node or any(one.name in known and known[one.name].gives_node for one in calls)
        for one in calls:
            if one.name in syntax().refused_steps:
                self.arguments.say(one, f"{one.name} is no step here: {syntax().refused_steps[one.name]}")
            elif one.name in known:
                self.arguments.check(one, known[one.name])
                if known[one.name].node and not node:
                    self.arguments.say(one, f"{one.name}: {NO_AGENT}")
