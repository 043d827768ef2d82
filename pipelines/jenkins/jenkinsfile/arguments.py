"""Calls held against what they take: names, number and types of arguments, blocks, ids of credentials."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from pipelines.jenkins.jenkinsfile.syntax import Credential, Kind, Signature, Type
from pipelines.jenkins.jenkinsfile.trees import Node

Say = Callable[[Node, str], None]

LITERALS = {"text": "string", "list": "list", "map": "map", "closure": "block"}
CONSTANTS: dict[type, str] = {bool: "bool", int: "int", str: "string", float: "number"}
WORDS = {
    "string": "a text", "int": "a whole number", "bool": "true or false", "list": "a list", "map": "a map",
    "number": "a number", "block": "a block",
}  # fmt: skip
IDS = ("credentialsId", "registryCredentialsId")
OLD_FORM = "$class"  # a map that names a class of Jenkins


def similar(name: str, known: Collection[str]) -> str:
    """What may have been meant, for the end of a message."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}" if len(known) < 16 else ""


def repeated(names: Iterable[str]) -> list[str]:
    """Names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def literal_type(node: Node) -> str | None:
    """The type of what is written down; nothing for null and for what only a run can tell."""
    return CONSTANTS.get(type(node.value)) if node.kind == "constant" else LITERALS.get(node.kind)


@dataclass(frozen=True)
class Arguments:
    """Checks calls; ``say`` takes what is wrong and where."""

    say: Say
    values: Mapping[str, Signature]
    credentials: Mapping[str, Credential]

    def check(self, call: Node, signature: Signature) -> None:
        """Hold a call against what it takes."""
        if signature.block and call.block is None:
            self.say(call, f"{call.name}: needs a block")
        if not signature.block and call.block is not None:
            self.say(call, f"{call.name}: takes no block")
        if any(name == OLD_FORM for name, _ in call.named):
            call = replace(call, named=(), items=(*call.items, Node("map", call.line, named=call.named)))
        if call.items and call.named:
            self.say(call, f"{call.name}: arguments with and without a name are mixed")
            return
        named = self._named(call, signature)
        if named is None:
            return
        for place, (name, value) in enumerate(named):
            if name in dict(named[:place]):
                self.say(value, f"{call.name}: {name} is given twice")
            self._argument(call, signature, name, value)
        for name in signature.needs:
            if name not in dict(named):
                self.say(call, f"{call.name}: {name} is missing")

    def _named(self, call: Node, signature: Signature) -> tuple[tuple[str, Node], ...] | None:
        """The arguments with their names; nothing where that cannot be said."""
        if not call.items or signature.open:
            return call.named
        if len(call.items) > 1:
            self.say(call, f"{call.name}: found {len(call.items)} arguments without a name, needed at most one")
        elif signature.unnamed is None:
            needed = "names" if signature.takes else "none"
            self.say(call, f"{call.name}: found an argument without a name, needed {needed}")
        else:
            return ((signature.unnamed, call.items[0]),)
        return None

    def _argument(self, call: Node, signature: Signature, name: str, value: Node) -> None:
        kind = signature.takes.get(name)
        if kind is None:
            if not signature.open:
                self.say(value, f"{call.name}: takes no {name}{similar(name, signature.takes)}")
            return
        wrong = self._wrong(value, kind)
        if wrong:
            self.say(value, f"{call.name}: {name}: {wrong}")
        elif name in IDS:
            self.credential(value, signature.kind)
        elif call.name == "sshagent" and name == "credentials":
            for one in value.items:
                self.credential(one, "ssh key")

    def credential(self, node: Node, kind: Kind | None = None) -> None:
        """An id has to be declared, as the kind that is asked for; one that only a run knows is not judged."""
        if node.kind != "constant":
            return
        known = self.credentials.get(str(node.value))
        if known is None:
            self.say(node, f"credentials {node.value!r} are not declared{similar(str(node.value), self.credentials)}")
        elif kind and known.kind != kind:
            self.say(node, f"credentials {node.value!r}: found {known.kind}, needed {kind}")

    def _wrong(self, node: Node, kind: Type) -> str | None:
        """What is wrong with a value, apart from what is wrong in the calls that it consists of."""
        found = literal_type(node)
        if isinstance(kind, tuple):
            known = found is None or node.kind == "text" or (node.kind == "constant" and node.value in kind)
            return None if known else f"found {self._shown(node)}, needed one of {', '.join(kind)}"
        head, *calls = kind.split()
        if head == "call":
            return self._wrong_call(node, calls)
        if head == "calls":
            if found not in (None, "list"):
                return f"found {self._shown(node)}, needed a list"
            return next((wrong for one in node.items if (wrong := self._wrong_call(one, calls))), None)
        allowed = kind.split("|")
        if found is None or kind == "any" or found in allowed:
            return None
        return f"found {self._shown(node)}, needed {' or '.join(WORDS[one] for one in allowed)}"

    def _wrong_call(self, node: Node, names: Collection[str]) -> str | None:
        if node.is_call(*names):
            self.check(node, self.values[node.name])
            return None
        if node.kind == "call" or literal_type(node):
            return f"found {self._shown(node)}, needed {' or '.join(f'{name}(...)' for name in names)}"
        return None

    @staticmethod
    def _shown(node: Node) -> str:
        if node.kind == "call":
            return f"{node.name}(...)"
        if node.kind == "constant":
            return repr(node.value) if isinstance(node.value, str) else str(node.value).lower()
        return WORDS[LITERALS[node.kind]]
