"""Strict validation of declarative Jenkinsfiles: the structure here; directives, steps and arguments beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.jenkins.jenkinsfile import trees
from pipelines.jenkins.jenkinsfile.arguments import Arguments, repeated, similar
from pipelines.jenkins.jenkinsfile.parts import Parts
from pipelines.jenkins.jenkinsfile.steps import Steps, Variable, library
from pipelines.jenkins.jenkinsfile.syntax import credentials, syntax
from pipelines.jenkins.jenkinsfile.trees import Node, Tree

HERE = Path(__file__).resolve().parents[1]
PIPELINES = HERE / "pipelines"
LIBRARY = HERE / "library"
LIBRARY_NAME = "deep-testbed"
BRANCHING = ("parallel", "matrix")


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong in which line; the first is 1, and 0 is the whole file."""

    line: int
    message: str


@dataclass
class Report:
    """A file and what is wrong with it."""

    path: Path
    problems: list[Problem] = field(default_factory=list)


def ours() -> list[Path]:
    """The Jenkinsfiles of this repository."""
    return sorted(PIPELINES.glob("*.Jenkinsfile"))


def library_files(folder: Path = LIBRARY) -> list[Path]:
    """The files of a shared library that define steps."""
    return sorted((folder / "vars").glob("*.groovy"))


def validate(paths: Sequence[Path], shared: Path = LIBRARY) -> list[Report]:
    """What is wrong with Jenkinsfiles, and with the steps of the shared library that they may use."""
    steps = library_files(shared)
    files = trees.read([*paths, *steps])
    known = library([one for one in files[len(paths) :] if one.error is None])
    return [
        *(check(one, known) for one in files[: len(paths)]),
        *(_check_library(one, known) for one in files[len(paths) :]),
    ]


def check(tree: Tree, variables: Mapping[str, Variable]) -> Report:
    """What is wrong with one Jenkinsfile, in the order of its lines."""
    report = _begun(tree)
    if tree.error is None:
        _Checker(tree, report, variables).file()
        report.problems = sorted(set(report.problems))
    return report


def _begun(tree: Tree) -> Report:
    return Report(tree.path, [Problem(tree.error[0], f"no Groovy: {tree.error[1]}")] if tree.error else [])


def _check_library(tree: Tree, variables: Mapping[str, Variable]) -> Report:
    """A file of ``vars`` has to define a step, whose own steps have to be known ones."""
    report = _begun(tree)
    if tree.error is None and not variables[tree.path.stem].sizes:
        report.problems.append(Problem(0, "defines no step: needed is a method call"))
    for method in tree.methods:
        script = Node("call", method.line, "script", block=method.block)
        _Checker(tree, report, variables).steps.check((script,), node=True)
    report.problems = sorted(set(report.problems))
    return report


@dataclass(frozen=True)
class _Place:
    """Where a stage is: its name for messages, whether steps have an agent, whether it is a branch of something."""

    name: str = "pipeline"
    node: bool = False
    branch: bool = False


class _Checker:
    """One file's check."""

    def __init__(self, tree: Tree, report: Report, variables: Mapping[str, Variable]) -> None:
        self.tree = tree
        self.report = report
        arguments = Arguments(self.say, syntax().values, credentials())
        loaded = {str(item.value).partition("@")[0] for one in self._loading() for item in one.walk() if item.value}
        self.steps = Steps(
            arguments, variables, frozenset(one.name for one in tree.methods), strict=loaded <= {LIBRARY_NAME}
        )
        self.parts = Parts(arguments)
        self.asked: list[str] = []

    def _loading(self) -> list[Node]:
        calls = [one for one in self.tree.walk() if one.is_call("lib", "library")]
        return [*calls, *(one for one in self.tree.annotations if one.name == "Library")]

    def say(self, node: Node, message: str) -> None:
        """Something is wrong at a node."""
        self.report.problems.append(Problem(node.line, message))

    def file(self) -> None:
        """One pipeline, and nothing of it outside of it."""
        found = [one for one in self.tree.statements if one.is_call("pipeline")]
        inside = {"stage", *(name for one in syntax().directives.values() for name in one.takes)}
        inside |= {name for name, one in syntax().steps.items() if one.node}
        for one in self.tree.statements:
            if one.is_call(*inside):
                self.say(one, f"{one.name} stands outside of pipeline {{ }}")
        if len(found) != 1:
            line = found[1].line if found else 0
            self.report.problems.append(Problem(line, f"found {len(found)} pipeline {{ }}, needed one"))
        for one in found:
            self._pipeline(one)

    def _pipeline(self, call: Node) -> None:
        parts = self._block(call, "pipeline", "pipeline")
        node = "agent" not in parts or self.parts.gives_agent(parts["agent"])
        place = _Place(node=node)
        if "parameters" in parts:
            self.asked = self.parts.parameters(parts["parameters"])
        self._common(parts, place)
        for name in ("triggers", "libraries"):
            if name in parts:
                getattr(self.parts, name)(parts[name])
        if "stages" in parts:
            self._stages(parts["stages"], place)
        if "parameters" in parts:
            self._refuse_unasked()

    def _refuse_unasked(self) -> None:
        for one in self.tree.walk():
            if one.kind == "property" and one.name not in self.asked and one.items[0].name == "params":
                self.say(one, f"params.{one.name} is no parameter{similar(one.name, self.asked)}")

    def _block(self, call: Node, directive: str, where: str) -> dict[str, Node]:
        """The directives in a block, each once and each with a block of its own."""
        known = syntax().directives[directive]
        found: dict[str, Node] = {}
        if call.block is None:
            self.say(call, f"{where}: needs a block")
            return found
        for one in self.parts.calls(call.block, f"a directive of {where}"):
            if one.name not in known.takes:
                steps = "; steps stand in steps { } of a stage" if one.name in {*syntax().steps, "script"} else ""
                self.say(one, f"{where}: unknown directive {one.name}{steps or similar(one.name, known.takes)}")
            elif one.name in found:
                self.say(one, f"{where}: {one.name} is given twice")
            else:
                found[one.name] = one
                self._refuse_formless(one, where)
        for name in known.needs:
            if name not in found:
                self.say(call, f"{where}: {name} is missing")
        return {name: one for name, one in found.items() if name in ("agent", "failFast") or one.block is not None}

    def _refuse_formless(self, one: Node, where: str) -> None:
        if one.name not in ("agent", "failFast") and (one.block is None or one.items or one.named):
            self.say(one, f"{where}: {one.name}: needs a block and nothing else")

    def _common(self, parts: Mapping[str, Node], place: _Place) -> None:
        """What pipelines, stages and matrices have alike."""
        for name in ("environment", "tools"):
            if name in parts:
                getattr(self.parts, name)(parts[name])
        if "options" in parts:
            self.parts.options(parts["options"], of_stage=place.name != "pipeline")
        if "post" in parts:
            self._post(parts["post"], place)

    def _post(self, call: Node, place: _Place) -> None:
        known = syntax().post
        names = []
        for one in self.parts.calls(call.block or (), "a condition of post"):
            names.append(one.name)
            if one.name not in known:
                self.say(one, f"{place.name}: post: unknown condition {one.name}{similar(one.name, known)}")
            elif not one.block or one.items or one.named:
                self.say(one, f"{place.name}: post: {one.name}: needs a block with steps")
            if one.name in names[:-1]:
                self.say(one, f"{place.name}: post: {one.name} is given twice")
            self.steps.check(one.block or (), node=place.node)
        if not call.block:
            self.say(call, f"{place.name}: post: names no condition")

    def _stages(self, call: Node, place: _Place) -> None:
        names: list[str] = []
        for one in self.parts.calls(call.block or (), "a stage"):
            if one.name != "stage":
                self.say(one, f"{place.name}: {call.name}: found {one.name}, needed a stage")
                continue
            name = one.items[0].value if len(one.items) == 1 and not one.named else None
            if not isinstance(name, str) or not name.strip():
                self.say(one, f"{place.name}: a stage needs a name, written as a text without values")
                name = "(without a name)"
            elif name in names:
                self.say(one, f"{place.name}: two stages are called {name!r}")
            names.append(name)
            self._stage(one, _Place(f"stage {name!r}", place.node, place.branch or call.name in BRANCHING))
        if not call.block:
            self.say(call, f"{place.name}: {call.name}: has no stage")

    def _stage(self, call: Node, place: _Place) -> None:
        parts = self._block(call, "stage", place.name)
        contents = [one for one in call.block or () if one.is_call(*syntax().contents)]
        if call.block is not None and len({one.name for one in contents}) != 1:
            kinds = ", ".join(syntax().contents)
            self.say(contents[1] if contents else call, f"{place.name}: found {len(contents)} of {kinds}, needed one")
        branching = [name for name in BRANCHING if name in parts]
        if branching:
            self._refuse_branching(parts, branching[0], place)
        elif "failFast" in parts:
            self.say(parts["failFast"], f"{place.name}: failFast: there is nothing parallel")
        if "failFast" in parts and [type(one.value) for one in parts["failFast"].items] != [bool]:
            self.say(parts["failFast"], f"{place.name}: failFast: needs true or false")
        place = self._entered(parts, place)
        if "steps" in parts:
            self._steps(parts["steps"], place)
        for name in ("stages", "parallel"):
            if name in parts:
                self._stages(parts[name], place)
        if "matrix" in parts:
            self._matrix(parts["matrix"], place)

    def _refuse_branching(self, parts: Mapping[str, Node], kind: str, place: _Place) -> None:
        if place.branch:
            self.say(parts[kind], f"{place.name}: {kind} within parallel or matrix")
        for name in ("agent", "tools"):
            if name in parts:
                self.say(parts[name], f"{place.name}: {name} beside {kind}; each branch has its own")

    def _entered(self, parts: Mapping[str, Node], place: _Place) -> _Place:
        """Check what a stage says beside its contents; the place in which these are."""
        if "agent" in parts:
            place = _Place(place.name, self.parts.gives_agent(parts["agent"]), place.branch)
        self._common(parts, place)
        if "input" in parts:
            self.asked += self.parts.input(parts["input"])
        if "when" in parts:
            self.parts.when(parts["when"])
        return place

    def _steps(self, call: Node, place: _Place) -> None:
        if not call.block:
            self.say(call, f"{place.name}: steps: has no step")
        self.steps.check(call.block or (), node=place.node)

    def _matrix(self, call: Node, place: _Place) -> None:
        parts = self._block(call, "matrix", f"{place.name}: matrix")
        place = self._entered(parts, _Place(place.name, place.node, branch=True))
        axes = self._axes(parts["axes"], ("values",)) if "axes" in parts else []
        for name in repeated(axes):
            self.say(parts["axes"], f"matrix: two axes are called {name!r}")
        for one in self.parts.calls(parts["excludes"].block or (), "exclude") if "excludes" in parts else ():
            if one.name != "exclude":
                self.say(one, f"matrix: excludes: found {one.name}, needed exclude")
                continue
            for name in set(self._axes(one, ("values", "notValues"))) - set(axes):
                self.say(one, f"matrix: exclude: there is no axis {name!r}")
        if "excludes" in parts and not parts["excludes"].block:
            self.say(parts["excludes"], "matrix: excludes: names nothing")
        if "stages" in parts:
            self._stages(parts["stages"], place)

    def _axes(self, call: Node, kinds: Sequence[str]) -> list[str]:
        """The names of the axes in a block, each with one of these kinds of values."""
        names = []
        for one in self.parts.calls(call.block or (), "axis"):
            fields = {inner.name: inner for inner in self.parts.calls(one.block or (), "name or values")}
            name = fields.pop("name", None)
            if one.name != "axis" or name is None or len(fields) != 1 or not set(fields) <= set(kinds):
                self.say(one, f"matrix: needed axis {{ }} with name and {' or '.join(kinds)}")
                continue
            values = [item for inner in fields.values() for item in inner.items]
            if not values or any(not isinstance(item.value, str) for item in (*name.items, *values)):
                self.say(one, "matrix: name and values of an axis are texts without values in them")
            for value in repeated(str(item.value) for item in values):
                self.say(one, f"matrix: {value!r} is given twice")
            names += [str(item.value) for item in name.items]
        if not call.block:
            self.say(call, f"matrix: {call.name}: has no axis")
        return names
