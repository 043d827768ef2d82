"""The runner that tests use in place of Jenkins: order, failures, post, parallel, conditions, secrets, questions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.jenkins.jenkinsfile.trees import Node
from pipelines.jenkins.runner.expressions import UnsupportedError, evaluate, text
from pipelines.jenkins.runner.run import Job, Outcome, run
from pipelines.jenkins.runner.steps import FailedError
from tests.unit.jenkinsfile_samples import RUN, library, read


def play(name: str, folder: Path, env: dict[str, str] | None = None, **options: Any) -> Outcome:
    job = Job(folder, {"PATH": os.environ["PATH"], **(env or {})}, **options)
    return run(read()[f"{name}.Jenkinsfile"], library(), job)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_stages_run_in_order_with_their_environment(tmp_path: Path) -> None:
    done = play("order", tmp_path)
    assert done.result == "SUCCESS"
    assert done.of("stage", "skipped") == ["One", "Two", "Three"]
    assert lines(tmp_path / "log") == [
        "hello all from one", "more", "after one", "one went well", "two!x", "seven is 7", "three",
        "not after a failure in post", "removed",
    ]  # fmt: skip
    assert lines(tmp_path / "below" / "place") == [str(tmp_path / "below")]
    assert len(lines(tmp_path / "tries")) == 2
    assert done.of("post") == ["always", "success", "always", "success", "cleanup"]


def test_a_failed_stage_stops_what_comes_after_it(tmp_path: Path) -> None:
    done = play("order", tmp_path, parameters={"FAILS": "One"})
    assert done.result == "FAILURE"
    assert done.of("stage") == ["One"]
    assert done.of("skipped") == ["Two", "Three"]
    assert lines(tmp_path / "log") == [
        "hello all from one", "after one", "one failed", "not after a failure in post", "removed",
    ]  # fmt: skip
    assert done.of("post") == [
        "always",
        "failure",
        "always",
        "changed",
        "regression",
        "failure",
        "unsuccessful",
        "cleanup",
    ]


def test_a_failure_in_post_does_not_keep_the_rest_of_it_from_running(tmp_path: Path) -> None:
    done = play("order", tmp_path, parameters={"FAILS": "post"})
    assert done.result == "FAILURE"
    assert lines(tmp_path / "log")[-2:] == ["three", "removed"]
    assert done.of("post")[-1] == "cleanup"


def test_what_is_unstable_goes_on(tmp_path: Path) -> None:
    done = play("order", tmp_path, parameters={"SHAKY": True}, previous="FAILURE")
    assert done.result == "UNSTABLE"
    assert done.of("stage") == ["One", "Two", "Three"]
    assert done.of("post")[2:] == ["always", "changed", "unstable", "unsuccessful", "cleanup"]


def test_what_is_mended_is_fixed(tmp_path: Path) -> None:
    assert play("order", tmp_path, previous="FAILURE").of("post")[2:] == [
        "always",
        "changed",
        "fixed",
        "success",
        "cleanup",
    ]


def test_a_choice_has_to_be_offered(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="FAILS: Four is no choice"):
        play("order", tmp_path, parameters={"FAILS": "Four"})


def test_branches_run_at_a_time(tmp_path: Path) -> None:
    done = play("parallel", tmp_path)
    assert done.of("stage") == ["Both", "Left", "Right", "Third", "First", "Second", "Hasty", "Fails", "Goes on"]
    assert (tmp_path / "second").exists()
    assert done.result == "ABORTED", "of a failed branch and one that was stopped for it, the worse"
    assert not (tmp_path / "never").exists()
    assert done.of("skipped") == ["Last"]


def test_a_failed_branch_lets_the_others_end(tmp_path: Path) -> None:
    done = play("parallel", tmp_path, parameters={"STATUS": "3"})
    assert done.result == "FAILURE"
    assert {"left", "right"} <= {path.name for path in tmp_path.iterdir()}
    assert done.of("skipped") == ["Second", "Hasty", "Last"]


SECRETS = {"site-ssh-key": "deep:made up key", "site-vault-password": "made up word\n"}


def test_conditions_decide_which_stages_run(tmp_path: Path) -> None:
    done = play("conditions", tmp_path, {"BRANCH_NAME": "release-2"}, secrets=SECRETS)
    assert done.of("stage") == ["Release", "Not a change", "Secrets"]
    done = play("conditions", tmp_path, {"BRANCH_NAME": "main", "CHANGE_ID": "4", "EVERY": "yes"}, secrets=SECRETS)
    assert done.of("stage") == ["Main", "Asked for", "By variable", "Secrets"]
    done = play("conditions", tmp_path, {"TAG_NAME": "v1"}, secrets=SECRETS, parameters={"ALL": True})
    assert done.of("stage") == ["Release", "Not a change", "Tagged", "Asked for", "Secrets"]


def test_without_an_answer_nothing_goes_on(tmp_path: Path) -> None:
    done = play("conditions", tmp_path, secrets=SECRETS)
    assert done.of("input") == ["Go on?"], "the other question stands behind a condition that does not hold"
    assert done.result == "ABORTED"
    assert done.of("skipped")[-2:] == ["Results", "No agent"]
    assert play("conditions", tmp_path, secrets=SECRETS, answers={"Go on?": False}).result == "ABORTED"


def test_results_are_looked_at_and_a_shell_needs_an_agent(tmp_path: Path) -> None:
    done = play("conditions", tmp_path, secrets=SECRETS, answers={"Go on?": True})
    assert done.of("junit", "archiveArtifacts") == ["out/*.xml", "out/**"]
    assert done.of("stage")[-3:] == ["Ask", "Results", "No agent"]
    assert done.of("failed") == ["sh without an agent: true"]
    assert done.result == "FAILURE"


def test_secrets_are_files_for_the_steps_that_ask_for_them(tmp_path: Path) -> None:
    play("conditions", tmp_path, secrets=SECRETS)
    assert lines(tmp_path / "got") == ["made up word", "600", "made up keydeep", "gone"]
    assert not Path(lines(tmp_path / "where")[0]).exists()
    done = play("conditions", tmp_path)
    assert done.of("failed") == ["no credentials site-ssh-key"]


def test_a_report_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    done = play("conditions", tmp_path, {"EMPTY": "yes"}, secrets=SECRETS, answers={"Go on?": True})
    assert done.of("failed") == ["no report: out/*.xml"]


def test_what_the_runner_does_not_know_is_no_success() -> None:
    for node in (
        Node("call", 1, "sh", on=Node("variable", 1, "x")),
        Node("operation", 1, "<=>", items=(Node("constant", 1), Node("constant", 1))),
        Node("variable", 1, "nobody"),
        Node("other", 1, "RangeExpression"),
    ):
        with pytest.raises(UnsupportedError, match="line 1: the runner does not know"):
            evaluate(node, {}, lambda call: None)


def test_values_are_written_as_groovy_does() -> None:
    assert [text(one) for one in (None, True, 3, "x")] == ["null", "true", "3", "x"]


def test_each_sample_is_run() -> None:
    assert {path.stem for path in RUN} == {"order", "parallel", "conditions"}
