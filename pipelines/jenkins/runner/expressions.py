"""Values of the few expressions of Groovy that pipelines and their library use; any other is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.jenkins.jenkinsfile.trees import Node

OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "+": lambda left, right: text(left) + text(right) if isinstance(left, str) else left + right,
    "in": lambda left, right: left in right,
}
METHODS: Mapping[str, Callable[..., Any]] = {
    "contains": lambda value, part: part in value,
    "join": lambda value, between: between.join(map(text, value)),
    "startsWith": lambda value, part: value.startswith(part),
    "trim": lambda value: value.strip(),
}


class UnsupportedError(Exception):
    """The runner does not know this; a test that needs it says nothing until it does."""

    def __init__(self, node: Node, what: str) -> None:
        super().__init__(f"line {node.line}: the runner does not know {what}")


@dataclass(frozen=True)
class Closure:
    """A block that is handed over: its statements, and the names that it knows."""

    statements: tuple[Node, ...]
    names: Mapping[str, Any]


def text(value: Any) -> str:
    """A value as Groovy puts it into a text."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


Of = Callable[[Node], Any]
KINDS: Mapping[str, Callable[[Node, Of], Any]] = {
    "constant": lambda node, _: node.value,
    "text": lambda node, of: "".join(text(of(one)) for one in node.items),
    "property": lambda node, of: (of(node.items[0]) or {}).get(node.name),
    "list": lambda node, of: [of(one) for one in node.items],
    "map": lambda node, of: {key: of(one) for key, one in node.named},
    "not": lambda node, of: not of(node.items[0]),
    "choice": lambda node, of: of(node.items[1]) if of(node.items[0]) else of(node.items[2]),
    "operation": lambda node, of: _operation(node, of),
}


def evaluate(node: Node, names: Mapping[str, Any], call: Of) -> Any:
    """The value of an expression; ``call`` makes calls that are no methods of objects."""

    def of(one: Node) -> Any:
        return evaluate(one, names, call)

    if node.kind == "variable":
        return _named(node, names)
    if node.kind == "closure":
        return Closure(node.block or (), names)
    if node.kind == "call":
        return call(node) if node.on is None else _method(node, of)
    if node.kind not in KINDS:
        raise UnsupportedError(node, node.name or node.kind)
    return KINDS[node.kind](node, of)


def _named(node: Node, names: Mapping[str, Any]) -> Any:
    if node.name not in names:
        raise UnsupportedError(node, f"the name {node.name}")
    return names[node.name]


def _operation(node: Node, of: Of) -> Any:
    left, right = node.items
    if node.name == "&&":
        return bool(of(left) and of(right))
    if node.name == "||":
        return bool(of(left) or of(right))
    if node.name not in OPERATIONS:
        raise UnsupportedError(node, f"the operator {node.name}")
    return OPERATIONS[node.name](of(left), of(right))


def _method(node: Node, of: Of) -> Any:
    if node.name not in METHODS or node.on is None:
        raise UnsupportedError(node, f"the method {node.name}")
    return METHODS[node.name](of(node.on), *(of(one) for one in node.items))
