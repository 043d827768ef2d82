"""The directives that hold no stages: agent, environment, options, parameters, triggers, tools, input, when."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from pipelines.jenkins.jenkinsfile import cron
from pipelines.jenkins.jenkinsfile.arguments import Arguments, literal_type, similar
from pipelines.jenkins.jenkinsfile.syntax import Signature, syntax
from pipelines.jenkins.jenkinsfile.trees import Node

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SIMPLE_AGENTS = ("any", "none")


class Parts:
    """Checks single directives; each method takes the directive's call, and says what is wrong."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.say = arguments.say

    def calls(self, statements: Sequence[Node], what: str) -> Iterator[Node]:
        """The statements that are plain calls; the others are no ``what``."""
        for one in statements:
            if one.is_call():
                yield one
            else:
                self.say(one, f"found other Groovy, needed {what}")

    def fields(self, statements: Sequence[Node], what: str) -> tuple[tuple[str, Node], ...]:
        """``NAME VALUE`` in lines, as arguments with names."""
        found = []
        for one in self.calls(statements, f"a field of {what}: NAME VALUE"):
            if len(one.items) == 1 and not one.named and one.block is None:
                found.append((one.name, one.items[0]))
            else:
                self.say(one, f"{what}: {one.name}: needs one value")
        return tuple(found)

    def gives_agent(self, call: Node) -> bool:
        """Check ``agent``; whether steps have one to run on."""
        if call.block is None:
            simple = len(call.items) == 1 and call.items[0].kind == "variable" and call.items[0].name in SIMPLE_AGENTS
            if not simple or call.named:
                self.say(call, "agent: needed any, none, or a block with one kind of agent")
            return not (simple and call.items[0].name == "none")
        kinds = list(self.calls(call.block, "a kind of agent"))
        if len(kinds) != 1 or call.items or call.named:
            self.say(call, f"agent: found {len(kinds)} kinds, needed one")
        for one in kinds:
            self._agent(one)
        return True

    def _agent(self, kind: Node) -> None:
        signature = syntax().agents.get(kind.name)
        if signature is None:
            self.say(kind, f"unknown agent {kind.name}{similar(kind.name, syntax().agents)}")
        elif signature.open or (kind.name == "dockerfile" and [one.value for one in kind.items] == [True]):
            pass
        elif kind.block is None:
            self.arguments.check(kind, signature)
        else:
            self.arguments.check(replace(kind, named=self.fields(kind.block, kind.name), block=None), signature)

    def environment(self, call: Node) -> None:
        """``NAME = value`` in lines."""
        names: set[str] = set()
        for one in call.block or ():
            if one.kind != "operation" or one.name != "=":
                self.say(one, "environment: needed NAME = value")
                continue
            name, value = one.items
            if name.kind != "variable" or not IDENTIFIER.fullmatch(name.name):
                self.say(one, "environment: needed a name of letters, digits and _ that begins with no digit")
            elif name.name in names:
                self.say(one, f"environment: {name.name} is set twice")
            names.add(name.name)
            self._environment_value(value)
        if not call.block:
            self.say(call, "environment: sets nothing")

    def _environment_value(self, value: Node, *, joined: bool = False) -> None:
        if value.kind == "operation" and value.name == "+":
            for one in value.items:
                self._environment_value(one, joined=True)
        elif value.is_call("credentials") and not joined:
            if len(value.items) != 1 or value.named or literal_type(value.items[0]) not in ("string", None):
                self.say(value, "credentials: needs one id")
            else:
                self.arguments.credential(value.items[0])
        elif value.kind not in ("constant", "text") and (joined or value.kind != "call"):
            self.say(value, "environment: needed a text, texts joined with +, or the call of a function")

    def options(self, call: Node, *, of_stage: bool) -> None:
        """Options of the pipeline or of a stage."""
        known = {name: one for name, one in syntax().options.items() if one.stage or not of_stage}
        where = "option of a stage" if of_stage else "option"
        self._listed(call, where, {name: one.model_copy(update={"block": False}) for name, one in known.items()})

    def triggers(self, call: Node) -> None:
        """When a pipeline starts by itself."""
        for one in self._listed(call, "trigger", syntax().triggers):
            for value in (*one.items, *(value for name, value in one.named if name.endswith("spec"))):
                if one.name != "upstream" and literal_type(value) == "string" and value.kind == "constant":
                    wrong = cron.problem(value.value)
                    if wrong:
                        self.say(value, f"{one.name}: {wrong}")

    def parameters(self, call: Node) -> list[str]:
        """What a pipeline is asked with; returns the names."""
        names: list[str] = []
        for one in self._listed(call, "parameter", syntax().parameters, once=False):
            given = dict(one.named)
            name, choices = given.get("name"), given.get("choices")
            if name and isinstance(name.value, str):
                if not IDENTIFIER.fullmatch(name.value):
                    self.say(name, f"parameter {name.value!r}: needed letters, digits and _, no digit first")
                if name.value in names:
                    self.say(name, f"parameter {name.value} is declared twice")
                names.append(name.value)
            if choices and choices.kind == "list" and not choices.items:
                self.say(choices, "choice: offers nothing")
        return names

    def _listed(self, call: Node, what: str, known: Mapping[str, Signature], *, once: bool = True) -> list[Node]:
        """The calls in a block that are known, each checked."""
        found: list[Node] = []
        for one in self.calls(call.block or (), f"a call of one {what}"):
            if one.name not in known:
                self.say(one, f"unknown {what} {one.name}{similar(one.name, known)}")
                continue
            if once and any(one.name == other.name for other in found):
                self.say(one, f"{what} {one.name} is given twice")
            self.arguments.check(one, known[one.name])
            found.append(one)
        if not call.block:
            self.say(call, f"{call.name}: names no {what}")
        return found

    def tools(self, call: Node) -> None:
        """Tools of Jenkins by their names."""
        self._texts(call, "tool", syntax().tools)

    def libraries(self, call: Node) -> None:
        """Shared libraries."""
        self._texts(call, "library", ("lib",))

    def _texts(self, call: Node, what: str, known: Sequence[str]) -> None:
        for name, value in self.fields(call.block or (), call.name):
            if name not in known:
                self.say(value, f"{call.name}: unknown {what} {name}{similar(name, known)}")
            elif literal_type(value) not in ("string", None):
                self.say(value, f"{call.name}: {name}: needs a text")
        if not call.block:
            self.say(call, f"{call.name}: names no {what}")

    def input(self, call: Node) -> list[str]:
        """The question before a stage; returns the names of its parameters."""
        inner = [one for one in call.block or () if one.is_call("parameters")]
        others = [one for one in call.block or () if one not in inner]
        asked = replace(call, named=self.fields(others, "input"), block=None)
        self.arguments.check(asked, syntax().input)
        if len(inner) > 1:
            self.say(inner[1], "input: parameters is given twice")
        return [name for one in inner for name in self.parameters(one)]

    def when(self, call: Node) -> None:
        """The condition of a stage."""
        flags = syntax().when_flags
        for one in call.block or ():
            if one.is_call(*flags) and [type(item.value) for item in one.items] != [bool]:
                self.say(one, f"{one.name}: needs true or false")
        conditions = [one for one in call.block or () if not one.is_call(*flags)]
        if not conditions:
            self.say(call, "when: names no condition")
        self._conditions(conditions)

    def _conditions(self, statements: Sequence[Node]) -> None:
        known, groups = syntax().when, syntax().when_groups
        for one in self.calls(statements, "a condition"):
            if one.name in groups:
                self._group(one)
            elif one.name not in known:
                self.say(one, f"unknown condition {one.name}{similar(one.name, [*known, *groups])}")
            elif one.name == "expression" and one.block == ():
                self.say(one, "expression: is empty")
            else:
                self.arguments.check(one, known[one.name])

    def _group(self, group: Node) -> None:
        needed: tuple[str, Callable[[int], bool]] = ("at least one", bool)
        if group.name == "not":
            needed = ("one", lambda count: count == 1)
        inner = group.block or ()
        if group.items or group.named or not needed[1](len(inner)):
            self.say(group, f"{group.name}: found {len(inner)} conditions in its block, needed {needed[0]}")
        self._conditions(inner)
