"""Executes the model of a Jenkinsfile, so that tests see which commands it runs, in which order, and what stops it.

This is not Jenkins. It has no plug-ins, no agents, no queue, no sandbox and no time limits; it knows the directives and
steps that our pipelines use, and refuses the others (``UnsupportedError``). What passes here can still fail in Jenkins.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipelines.jenkins.jenkinsfile.syntax import Signature, credentials, syntax
from pipelines.jenkins.jenkinsfile.trees import Node, Tree
from pipelines.jenkins.runner import steps
from pipelines.jenkins.runner.expressions import Closure, UnsupportedError, evaluate, text
from pipelines.jenkins.runner.steps import RESULTS, Event, FailedError, State, Where

# Conditions of ``when`` by what they ask of the environment.
CONDITIONS: Mapping[str, Callable[[Mapping[str, str], dict[str, Any]], bool]] = {
    "branch": lambda env, given: fnmatchcase(env.get("BRANCH_NAME", ""), given["pattern"]),
    "tag": lambda env, given: fnmatchcase(env.get("TAG_NAME", ""), given["pattern"]),
    "buildingTag": lambda env, _: "TAG_NAME" in env,
    "changeRequest": lambda env, _: "CHANGE_ID" in env,
    "environment": lambda env, given: env.get(given["name"]) == given["value"],
    "equals": lambda _, given: bool(given["expected"] == given["actual"]),
}


@dataclass(frozen=True)
class Job:
    """What surrounds a run.

    ``env``: its environment, PATH among it. ``parameters``: those that were given. ``secrets``: made-up credentials by
    id; of kinds with a user, ``USER:SECRET``. ``answers``: message of a question to whether it is approved; one that is
    not there is refused. ``previous``: result of the build before.
    """

    workspace: Path
    env: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, bool] = field(default_factory=dict)
    previous: str = "SUCCESS"


@dataclass(frozen=True)
class Outcome:
    """What a run came to, and what happened in which order (of what ran side by side, branch after branch)."""

    result: str
    events: tuple[Event, ...]

    def of(self, *kinds: str) -> list[str]:
        """What happened of these kinds, in order."""
        return [one.what for one in self.events if one.kind in kinds]


def run(tree: Tree, library: Sequence[Tree], job: Job) -> Outcome:
    """Run a Jenkinsfile that the validator has let through."""
    with tempfile.TemporaryDirectory(prefix="deep-jenkinsfile-") as folder:
        return _Run(tree, library, job, Path(folder)).pipeline()


class _Run:  # pylint: disable=too-many-public-methods  # one for each directive and step
    def __init__(self, tree: Tree, library: Sequence[Tree], job: Job, scratch: Path) -> None:
        self.root = next(one for one in tree.statements if one.is_call("pipeline"))
        self.methods = {one.name: one for one in tree.methods}
        self.methods |= {one.path.stem: method for one in library for method in one.methods if method.name == "call"}
        self.job = job
        self.scratch = scratch

    def pipeline(self) -> Outcome:
        """The whole of it."""
        parts = _parts(self.root)
        state = State()
        where = Where(dict(self.job.env), self.job.workspace, {"scm": "scm", **self.job.env}, state)
        given = self._parameters(parts.get("parameters"), where)
        where = where.with_env({name: text(value) for name, value in given.items()})
        where = self._agent(parts, replace(where, names={**where.names, **given, "params": given}))
        try:
            where = self._environment(parts, where)
            self._stages(parts["stages"], where)
        except FailedError as failed:
            where.note("failed", str(failed))
            state.worsen(failed.result)
        self._post(parts, where)
        return Outcome(state.result, tuple(where.log))

    def _parameters(self, call: Node | None, where: Where) -> dict[str, Any]:
        declared = {}
        for one in call.block or () if call else ():
            fields = self._named(one, where)
            choices = fields.get("choices")
            first = choices[0] if isinstance(choices, list) else None
            value = self.job.parameters.get(fields["name"], fields.get("defaultValue", first))
            if isinstance(choices, list) and value not in choices:
                raise FailedError(f"{fields['name']}: {value} is no choice")
            declared[fields["name"]] = value
        return declared

    def _agent(self, parts: Mapping[str, Node], where: Where) -> Where:
        if "agent" not in parts:
            return where
        return replace(where, node=not (parts["agent"].items and parts["agent"].items[0].name == "none"))

    def _environment(self, parts: Mapping[str, Node], where: Where) -> Where:
        for one in parts["environment"].block or () if "environment" in parts else ():
            name, value = one.items
            if value.is_call("credentials"):
                where = where.with_env(self._credentials(name.name, self.evaluate(value.items[0], where)))
            else:
                where = where.with_env({name.name: text(self.evaluate(value, where))})
        return where

    def _credentials(self, name: str, identifier: str) -> dict[str, str]:
        """The variables that ``NAME = credentials('ID')`` sets."""
        secret, kind = self._secret(identifier), credentials()[identifier].kind
        user, _, password = secret.partition(":")
        if kind in ("secret file", "certificate"):
            return {name: steps.secret_file(self.scratch, name, secret)}
        if kind == "ssh key":
            return {name: steps.secret_file(self.scratch, name, password), f"{name}_USR": user}
        if kind == "user name and password":
            return {name: secret, f"{name}_USR": user, f"{name}_PSW": password}
        return {name: secret}

    def _secret(self, identifier: str) -> str:
        if identifier not in self.job.secrets:
            raise FailedError(f"no credentials {identifier}")
        return self.job.secrets[identifier]

    # --- stages ----------------------------------------------------------------------------------------------------

    def _stages(self, call: Node, where: Where) -> None:
        """One after the other; what comes after a failed one is skipped."""
        for one in call.block or ():
            if where.state.result in ("SUCCESS", "UNSTABLE"):
                where.state.worsen(self._stage(one, where))
            else:
                where.note("skipped", one.items[0].value)

    def _stage(self, call: Node, outer: Where) -> str:
        parts = _parts(call)
        state = State()
        where = replace(outer, stage=call.items[0].value, state=state)
        try:
            if not self._wanted(parts, where):
                where.note("skipped", where.stage)
                return "SUCCESS"
            where.note("stage", where.stage)
            where = self._environment(parts, self._agent(parts, where))
            self._contents(parts, where)
        except FailedError as failed:
            where.note("failed", str(failed))
            state.worsen(failed.result)
        self._post(parts, where)
        return state.result

    def _wanted(self, parts: Mapping[str, Node], where: Where) -> bool:
        """Ask and look at the condition, in Jenkins' order; whether the stage is to run."""
        condition = parts["when"].block or () if "when" in parts else ()
        early = any(one.is_call("beforeInput") and one.items[0].value for one in condition)
        conditions = [one for one in condition if one.name not in syntax().when_flags]
        if early and not self._all(conditions, where):
            return False
        if "input" in parts:
            fields = {one.name: one.items[0] for one in parts["input"].block or () if one.items}
            self._ask(where, self.evaluate(fields["message"], where))
        return early or self._all(conditions, where)

    def _ask(self, where: Where, message: str) -> None:
        where.note("input", message)
        if not self.job.answers.get(message):
            raise FailedError(f"not approved: {message}", "ABORTED")

    def _contents(self, parts: Mapping[str, Node], where: Where) -> None:
        if "steps" in parts:
            self._body(parts["steps"].block or (), where)
        elif "stages" in parts:
            self._stages(parts["stages"], where)
        elif "parallel" in parts:
            self._parallel(parts, where)
        else:
            raise UnsupportedError(self.root, "the directive matrix")

    def _parallel(self, parts: Mapping[str, Node], where: Where) -> None:
        branches = parts["parallel"].block or ()
        stop = threading.Event()
        fail_fast = "failFast" in parts and parts["failFast"].items[0].value
        logs: list[list[Event]] = [[] for _ in branches]

        def branch(number: int) -> str:
            result = self._stage(branches[number], replace(where, log=logs[number], stopped=stop.is_set))
            if fail_fast and RESULTS.index(result) > RESULTS.index("UNSTABLE"):
                stop.set()
            return result

        with ThreadPoolExecutor(len(branches)) as pool:
            results = list(pool.map(branch, range(len(branches))))
        where.log.extend(one for log in logs for one in log)
        for result in results:
            where.state.worsen(result)

    def _post(self, parts: Mapping[str, Node], where: Where) -> None:
        blocks = {one.name: one.block or () for one in parts["post"].block or ()} if "post" in parts else {}
        for name in syntax().post:
            if name in blocks and _applies(name, where.state.result, self.job.previous):
                where.note("post", name)
                try:
                    self._body(blocks[name], replace(where, stopped=lambda: False))
                except FailedError as failed:
                    where.note("failed", str(failed))
                    where.state.worsen(failed.result)

    # --- conditions ------------------------------------------------------------------------------------------------

    def _all(self, conditions: Sequence[Node], where: Where) -> bool:
        return all(self._holds(one, where) for one in conditions)

    def _holds(self, one: Node, where: Where) -> bool:
        inner = one.block or ()
        if one.name in syntax().when_groups:
            found = [self._holds(each, where) for each in inner]
            return any(found) if one.name == "anyOf" else all(found) != (one.name == "not")
        if one.name == "expression":
            return bool(self._body(inner, where))
        if one.name not in CONDITIONS:
            raise UnsupportedError(one, f"the condition {one.name}")
        return CONDITIONS[one.name](where.env, self._arguments(one, syntax().when[one.name], where))

    # --- steps -----------------------------------------------------------------------------------------------------

    def _named(self, call: Node, where: Where) -> dict[str, Any]:
        return {name: self.evaluate(value, where) for name, value in call.named}

    def _arguments(self, call: Node, signature: Signature, where: Where) -> dict[str, Any]:
        """The arguments by their names, the one without a name too."""
        unnamed = {signature.unnamed or "": self.evaluate(call.items[0], where)} if call.items else {}
        return {**unnamed, **self._named(call, where)}

    def evaluate(self, node: Node, where: Where) -> Any:
        """The value of an expression, in which steps may be called."""
        return evaluate(node, {"env": where.env, **where.names}, lambda call: self._step(call, where))

    def _body(self, statements: Sequence[Node], where: Where) -> Any:
        """Run statements; the value is that of a return, or of the last one."""
        value: Any = None
        for one in statements:
            if where.stopped():
                raise FailedError("another branch has failed", "ABORTED")
            if one.kind == "if":
                value = self._body((one.block if self.evaluate(one.items[0], where) else one.otherwise) or (), where)
            elif one.kind == "declaration":
                name = {one.items[0].name: self.evaluate(one.items[1], where)}
                where = replace(where, names={**where.names, **name})
            elif one.kind == "return":
                return self.evaluate(one.items[0], where)
            else:
                value = self.evaluate(one, where)
        return value

    def _step(self, call: Node, where: Where) -> Any:
        name, body = call.name, call.block or ()
        if isinstance(where.names.get(name), Closure):
            handed = where.names[name]
            return self._body(handed.statements, replace(where, names={**where.names, **handed.names, **where.env}))
        if name in self.methods:
            return self._method(call, self.methods[name], where)
        if name == "script" or name in steps.AROUND:
            return self._body(body, replace(where, node=where.node or name == "node"))
        if name in syntax().values:  # an argument of another step
            return {"binding": name, **self._arguments(call, syntax().values[name], where)}
        handler = getattr(self, f"_do_{name}", None)
        if name not in syntax().steps or not (handler or name in steps.DONE):
            raise UnsupportedError(call, f"the step {name}")
        given = self._arguments(call, syntax().steps[name], where)
        return handler(given, body, where) if handler else steps.DONE[name](where, **given)

    def _method(self, call: Node, method: Node, where: Where) -> Any:
        """A step of the shared library, or a method of the file: its body, with the arguments under their names."""
        given: list[Any] = [self._named(call, where)] if call.named else []
        given += [self.evaluate(one, where) for one in call.items]
        given += [Closure(call.block, where.names)] if call.block is not None else []
        return self._body(
            method.block or (),
            replace(where, names={**where.names, **dict(zip(method.parameters, given, strict=True))}),
        )

    def _do_error(self, given: dict[str, Any], _: Sequence[Node], __: Where) -> None:
        raise FailedError(given["message"])

    def _do_unstable(self, given: dict[str, Any], _: Sequence[Node], where: Where) -> None:
        where.note("unstable", given["message"])
        where.state.worsen("UNSTABLE")

    def _do_input(self, given: dict[str, Any], _: Sequence[Node], where: Where) -> None:
        self._ask(where, given["message"])

    def _do_dir(self, given: dict[str, Any], body: Sequence[Node], where: Where) -> Any:
        return self._body(body, replace(where, folder=where.folder / given["path"]))

    def _do_withEnv(self, given: dict[str, Any], body: Sequence[Node], where: Where) -> Any:  # noqa: N802 # Jenkins' name
        return self._body(body, where.with_env(dict(one.split("=", 1) for one in given["overrides"])))

    def _do_retry(self, given: dict[str, Any], body: Sequence[Node], where: Where) -> Any:
        for left in reversed(range(given["count"])):
            try:
                return self._body(body, where)
            except FailedError:
                if not left:
                    raise
        return None

    def _do_catchError(self, given: dict[str, Any], body: Sequence[Node], where: Where) -> None:  # noqa: N802 # Jenkins' name
        try:
            self._body(body, where)
        except FailedError as failed:
            where.note("failed", str(failed))
            where.state.worsen(given.get("stageResult", "FAILURE"))

    def _do_withCredentials(self, given: dict[str, Any], body: Sequence[Node], where: Where) -> Any:  # noqa: N802 # Jenkins' name
        bound: dict[str, str] = {}
        for one in given["bindings"]:
            bound |= self._bound(one)
        try:
            return self._body(body, where.with_env(bound))
        finally:
            for value in bound.values():
                if Path(value).parent == self.scratch:
                    Path(value).unlink(missing_ok=True)

    def _bound(self, binding: Mapping[str, str]) -> dict[str, str]:
        """The variables of one binding."""
        secret = self._secret(binding["credentialsId"])
        user, _, password = secret.partition(":")
        files = {"file": ("variable", secret), "sshUserPrivateKey": ("keyFileVariable", password)}
        if binding["binding"] in files:
            key, content = files[binding["binding"]]
            made = {binding[key]: steps.secret_file(self.scratch, binding[key], content)}
        else:
            made = {binding["variable"]: secret} if "variable" in binding else {}
        more = (("usernameVariable", user), ("passwordVariable", password))
        return made | {binding[key]: value for key, value in more if key in binding}


def _parts(call: Node) -> dict[str, Node]:
    return {one.name: one for one in call.block or ()}


def _applies(condition: str, result: str, previous: str) -> bool:
    """Whether a condition of ``post`` holds for a result after the result of the build before."""
    better = RESULTS.index(result) < RESULTS.index(previous)
    return {
        "always": True,
        "changed": result != previous,
        "fixed": better and result == "SUCCESS" and previous != "ABORTED",
        "regression": RESULTS.index(result) > RESULTS.index(previous),
        "unsuccessful": result != "SUCCESS",
        "cleanup": True,
    }.get(condition, condition == result.lower())
