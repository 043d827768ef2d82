"""Running a playbook: what is read from Ansible's output, and how a failure is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.errors import DeepError
from testbed.paths import repo_root
from testbed.playbook import (
    Failure,
    OutputReader,
    PlaybookResult,
    playbook_error,
    playbook_path,
    run_playbook,
    sentences,
)

OUTPUT = """
PLAY [Check these hosts, unless they have been] ********************************
skipping: no hosts matched

PLAY [Prepare every host] ******************************************************

TASK [common : Check the host] *************************************************
[ERROR]: Task failed: Action failed: node1: too little memory
Origin: /somewhere/precheck.yml:8:7

fatal: [node1]: FAILED! =>
    assertion: false
    msg: |-
        node1: too little memory (found 100 MiB, needed 900 MiB). Next: give the host more memory

        node1: too little disk (found 1 MiB, needed 2 MiB). Next: enlarge the disk
ok: [node2] =>
    changed: false

TASK [containerd : Install the packages] ***************************************
failed: [node2] (item=runc) =>
    ansible_loop_var: item
    item: runc
    msg: no such package
fatal: [node3]: UNREACHABLE! =>
    changed: false
    msg: 'Failed to connect to the host via ssh'
    unreachable: true
fatal: [node4 -> node1(198.18.0.11)]: FAILED! =>
    cmd: [kubeadm, init]
    msg: non-zero return code
    rc: 1
    stderr: |-
        first line
        [ERROR Port-6443]: Port 6443 is in use

TASK [common : Try something] **************************************************
fatal: [node2]: FAILED! =>
    msg: allowed to fail
...ignoring

RUNNING HANDLER [common : Load settings] ***************************************
changed: [node2]

PLAY RECAP *********************************************************************
node1                      : ok=1    changed=0    unreachable=0    failed=1    skipped=0    rescued=0    ignored=0
node2                      : ok=3    changed=2    unreachable=0    failed=1    skipped=4    rescued=0    ignored=0
"""


class Heard:
    """Keeps what a listener is told."""

    def __init__(self) -> None:
        self.plays: list[str] = []
        self.tasks: list[tuple[int, str]] = []

    def play(self, name: str) -> None:
        self.plays.append(name)

    def task(self, number: int, name: str) -> None:
        self.tasks.append((number, name))


@pytest.fixture
def read() -> tuple[OutputReader, Heard]:
    heard = Heard()
    reader = OutputReader(heard)
    for line in OUTPUT.splitlines():
        reader.feed(line)
    reader.finish()
    return reader, heard


def test_plays_tasks_and_handlers_are_announced(read: tuple[OutputReader, Heard]) -> None:
    assert read[1].plays == ["Prepare every host"]
    names = ["common : Check the host", "containerd : Install the packages", "common : Try something"]
    names.append("common : Load settings")
    assert read[1].tasks == list(enumerate(names, start=1))


def test_recap_is_counted(read: tuple[OutputReader, Heard]) -> None:
    assert read[0].hosts["node2"] == {
        "ok": 3, "changed": 2, "unreachable": 0, "failed": 1, "skipped": 4, "rescued": 0, "ignored": 0,
    }  # fmt: skip
    assert set(read[0].hosts) == {"node1", "node2"}


def test_failures_name_host_task_and_reason(read: tuple[OutputReader, Heard]) -> None:
    found = [(failure.host, failure.task, failure.message.splitlines()[0]) for failure in read[0].failures]
    install = "containerd : Install the packages"
    memory = "node1: too little memory (found 100 MiB, needed 900 MiB). Next: give the host more memory"
    assert found == [
        ("node1", "common : Check the host", memory),
        ("node2", install, "no such package"),
        ("node3", install, "Failed to connect to the host via ssh"),
        ("node4", install, "non-zero return code: [ERROR Port-6443]: Port 6443 is in use"),
    ]


def test_error_carries_host_next_step_and_the_others(read: tuple[OutputReader, Heard]) -> None:
    result = PlaybookResult("site.yml", False, 1.0, Path("/logs/x"), 3, read[0].hosts, tuple(read[0].failures))
    error = playbook_error(result, 2)
    assert (error.host, error.exit_code) == ("node1", 1)
    assert error.message.startswith("common : Check the host: too little memory (found 100 MiB, needed 900 MiB).")
    assert "too little disk" in error.message
    assert "node3" in error.message
    assert error.next_step == "give the host more memory; whole log: /logs/x"


def test_a_failure_that_says_what_to_do_comes_first() -> None:
    raw = Failure("node2", "Connect", "timed out")
    told = Failure("node2", "Say so", "node2: the host cannot be reached. Next: ssh root@node2")
    error = playbook_error(PlaybookResult("site.yml", False, 1.0, Path("/logs/x"), 2, {}, (raw, told)), 4)
    assert error.message.startswith("Say so: the host cannot be reached.\n  also node2: Connect: timed out")
    assert (error.next_step or "").startswith("ssh root@node2; ")


def test_the_order_in_which_hosts_answer_does_not_show() -> None:
    answers = (Failure("node2", "Check", "too small"), Failure("node1", "Check", "too small"))
    errors = [
        playbook_error(PlaybookResult("site.yml", False, 1.0, Path("/logs/x"), 1, {}, found), 2)
        for found in (answers, answers[::-1])
    ]
    assert [error.host for error in errors] == ["node1", "node1"]
    assert {error.message for error in errors} == {"Check: too small\n  also node2: Check: too small"}


def test_error_without_a_failed_task_quotes_ansible() -> None:
    result = PlaybookResult("site.yml", False, 1.0, Path("/logs/x"), 0)
    error = playbook_error(result, 4, "the role 'nowhere' was not found")
    assert "exit status 4: the role 'nowhere' was not found" in error.message


def test_a_message_of_several_lines_that_is_no_list_stays_whole() -> None:
    assert sentences("a", "first\na: second. Next: third") == [("first\na: second.", "third")]
    assert sentences("a", "  ") == [("failed without a word", "")]


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(
        f"all: {{vars: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}},"
        " hosts: {good: , bad: }}"
    )
    path = tmp_path / "play.yml"
    path.write_text(
        """
- name: Try
  hosts: all
  gather_facts: false
  tasks:
    - name: Say something
      ansible.builtin.debug:
        msg: hello
    - name: Refuse
      ansible.builtin.assert:
        that: inventory_hostname == 'good' or (lenient | default(false))
        fail_msg: "{{ inventory_hostname }}: not good (found bad, needed good). Next: be good"
"""
    )
    return path


def test_a_real_run_succeeds(playbook: Path) -> None:
    log = playbook.parent / "logs" / "run.log"
    arguments = ["-i", str(playbook.parent / "hosts.yml")]
    result = run_playbook(
        playbook, arguments, log=log, extra_args=["-e", '{"lenient": true}'], facts=playbook.parent / "f", quiet=True
    )
    assert (result.ok, result.tasks, result.changed, result.failures) == (True, 2, 0, ())
    assert result.hosts["bad"]["ok"] == 2
    assert result.as_dict()["log"] == str(log)
    assert "PLAY RECAP" in log.read_text(encoding="utf-8")


def test_a_real_run_fails_with_host_and_task(playbook: Path) -> None:
    log = playbook.parent / "run.log"
    arguments = ["-i", str(playbook.parent / "hosts.yml")]
    with pytest.raises(DeepError, match=r"bad: Refuse: not good \(found bad, needed good\)") as caught:
        run_playbook(playbook, arguments, log=log, facts=playbook.parent / "f", quiet=True)
    assert (caught.value.host, caught.value.exit_code) == ("bad", 1)
    assert caught.value.next_step == f"be good; whole log: {log}"
    again = run_playbook(playbook, arguments, log=log, facts=playbook.parent / "f", quiet=True, must_succeed=False)
    assert not again.ok
    assert log.read_text(encoding="utf-8").count("PLAY RECAP") == 2


def test_an_unreadable_playbook_is_told(tmp_path: Path) -> None:
    path = tmp_path / "play.yml"
    path.write_text("- hosts: all\n  roles: [nowhere]\n")
    with pytest.raises(DeepError, match="'nowhere' was not found"):
        run_playbook(path, ["-i", "localhost,"], log=tmp_path / "log", quiet=True)


def test_unknown_playbook_is_a_wrong_usage() -> None:
    with pytest.raises(DeepError, match="no playbook nowhere") as caught:
        playbook_path("nowhere")
    assert caught.value.exit_code == 2
    assert playbook_path("site") == repo_root() / "playbooks" / "site.yml"


def test_ansible_ends_with_its_parent(tmp_path: Path) -> None:
    """SIGKILL leaves no playbook running behind."""
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: sleep 60\n"
    )
    script = (
        "import pathlib, sys; from testbed.playbook import run_playbook; here = pathlib.Path(sys.argv[1]); "
        "python = f'ansible_python_interpreter={sys.executable}'; "
        "run_playbook(here / 'play.yml', ['-i', 'localhost,', '-c', 'local', '-e', python], log=here / 'log')"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=repo_root()) as parent:
        child = _wait_for_child(parent.pid, tmp_path / "log")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(child)


def _wait_for_child(parent: int, log: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
        if children and log.is_file() and "TASK" in log.read_text(encoding="utf-8"):
            return int(children[0])
        time.sleep(0.1)
    raise AssertionError("ansible did not start")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
