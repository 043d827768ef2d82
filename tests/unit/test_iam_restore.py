"""Restoring the IAM's database: what a killed run has set aside is never lost. By real programs, without Keycloak."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.paths import repo_root
from testbed.rendering import role_path

# What stands for programs of the host: there is a unit of Keycloak, and psql is run by whoever owns the server.
STUBS = {
    "systemctl": '[ -z "$NO_UNIT" ] || exit 1; echo "$*" >>"$CALLS"',
    "runuser": 'shift 3; exec "$@"',
    "chown": ":",
    "install": 'mkdir "${@: -1}"',
}


class Database:
    """One database of Keycloak, by the script of its kind."""

    def __init__(self, kind: str, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.dump = str(folder / "dump")
        self.calls = folder / "calls"
        self.state = folder / "state"
        self.state.mkdir()
        script = (role_path("iam") / "files" / f"{kind}.sh").read_text(encoding="utf-8")
        self.script = folder / "script"
        self.script.write_text(script.replace("cd /var/lib/keycloak", f"cd {self.state}"), encoding="utf-8")
        stubs = folder / "stubs"
        stubs.mkdir()
        for name, text in STUBS.items():
            (stubs / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
            (stubs / name).chmod(0o755)
        path = f"{stubs}:{environment.get('PATH', os.environ['PATH'])}"
        self.environment = {**os.environ, "NO_UNIT": "", **environment, "CALLS": str(self.calls), "PATH": path}

    def run(self, *arguments: str, status: int = 0) -> list[str]:
        """One verb; returns what was asked of systemd."""
        self.calls.write_text("", encoding="utf-8")
        done = subprocess.run(
            ["sh", str(self.script), *arguments],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode != 0) == bool(status), done.stderr
        asked = self.calls.read_text(encoding="utf-8").splitlines()
        return [line for line in asked if not line.startswith("cat")]

    def write(self, text: str) -> None:
        """Have something in the database in use."""
        raise NotImplementedError

    def read(self) -> str:
        """What is in the database in use."""
        raise NotImplementedError

    def others(self) -> list[str]:
        """What there is beside it."""
        raise NotImplementedError


class FileDatabase(Database):
    """dev-file: a folder."""

    def write(self, text: str) -> None:
        (self.state / "h2").mkdir(exist_ok=True)
        (self.state / "h2" / "people").write_text(text, encoding="utf-8")

    def read(self) -> str:
        file = self.state / "h2" / "people"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def others(self) -> list[str]:
        return sorted(path.name for path in self.state.iterdir() if path.name != "h2")


class ServerDatabase(Database):
    """PostgreSQL, a server of the tests' own."""

    def psql(self, text: str, database: str = "keycloak") -> str:
        done = subprocess.run(
            ["psql", "-XqtA", "-v", "ON_ERROR_STOP=1", database],
            input=text,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, text: str) -> None:
        self.psql(f"DROP TABLE IF EXISTS people; CREATE TABLE people AS SELECT '{text}' AS name")

    def read(self) -> str:
        there = self.psql("SELECT 1 FROM pg_tables WHERE tablename = 'people'")
        return self.psql("SELECT name FROM people") if there else ""

    def others(self) -> list[str]:
        return self.psql("SELECT datname FROM pg_database WHERE datname LIKE 'keycloak_%' ORDER BY 1").split()


@pytest.fixture(params=["dev-file", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database with people of before, and a dump with those of the backup."""
    found: Database
    if request.param == "dev-file":
        found = FileDatabase(request.param, tmp_path, {})
    else:
        found = ServerDatabase(request.param, tmp_path, request.getfixturevalue("postgresql"))
        for name in ("keycloak", "keycloak_before", "keycloak_restored"):
            found.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "postgres")
        if not found.psql("SELECT 1 FROM pg_roles WHERE rolname = 'keycloak'", "postgres"):
            found.psql("CREATE ROLE keycloak LOGIN", "postgres")
        found.psql("CREATE DATABASE keycloak OWNER keycloak", "postgres")
    found.write("backup")
    found.run("dump", found.dump)
    found.write("before")
    return found


def test_a_backup_takes_the_place_of_what_was_there(database: Database) -> None:
    assert database.run("prepare", database.dump) == []
    assert database.read() == "before"
    database.run("swap")
    assert database.read() == "backup"
    database.run("forget")
    assert (database.read(), database.others()) == ("backup", [])


def test_it_is_undone(database: Database) -> None:
    database.run("prepare", database.dump)
    database.run("swap")
    database.run("back")
    database.run("back")
    database.run("forget")
    assert (database.read(), database.others()) == ("before", [])


def test_without_a_swap_there_is_nothing_to_undo(database: Database) -> None:
    database.run("prepare", database.dump)
    database.run("back")
    database.run("forget")
    assert (database.read(), database.others()) == ("before", [])


@pytest.mark.parametrize("killed_after", [["prepare"], ["prepare", "swap"], ["prepare", "swap", "back"]])
def test_after_a_killed_run_the_next_one_begins_with_the_database_of_before(
    database: Database, killed_after: list[str]
) -> None:
    for verb in killed_after:
        database.run(verb, database.dump)
    asked = database.run("prepare", database.dump)
    assert database.read() == "before"
    # Nobody is on a database that is exchanged, nor remembers what was in it.
    assert asked == (["stop keycloak", "start keycloak"] if killed_after[-1] == "swap" else [])
    database.run("swap")
    assert database.read() == "backup"
    database.run("back")
    assert database.read() == "before"


def test_a_run_that_was_killed_and_then_cannot_read_the_backup_has_the_database_of_before(database: Database) -> None:
    database.run("prepare", database.dump)
    database.run("swap")
    Path(database.dump).write_bytes(b"no dump")
    asked = database.run("prepare", database.dump, status=1)
    assert (database.read(), database.others()) == ("before", [])
    assert asked == ["stop keycloak", "start keycloak"]


def test_on_a_host_without_keycloak_nothing_is_started(database: Database) -> None:
    database.run("prepare", database.dump)
    database.run("swap")
    database.environment["NO_UNIT"] = "1"
    assert database.run("prepare", database.dump) == []
    assert database.read() == "before"


def test_a_file_is_copied_while_keycloak_is_stopped(tmp_path: Path) -> None:
    found = FileDatabase("dev-file", tmp_path, {})
    assert found.run("dump", found.dump, status=1) == ["stop keycloak", "start keycloak"], "also where it fails"
    found.write("people")
    assert found.run("dump", found.dump) == ["stop keycloak", "start keycloak"]


def test_a_swap_of_a_file_that_was_killed_between_its_two_steps_loses_nothing(tmp_path: Path) -> None:
    found = FileDatabase("dev-file", tmp_path, {})
    found.write("backup")
    found.run("dump", found.dump)
    found.write("before")
    found.run("prepare", found.dump)
    (found.state / "h2").rename(found.state / "before")
    # Its host came up again meanwhile, and Keycloak made a new one.
    found.write("nothing")
    found.run("prepare", found.dump)
    assert found.read() == "before"


def test_on_a_new_host_a_file_can_be_put_back_too(tmp_path: Path) -> None:
    found = FileDatabase("dev-file", tmp_path, {})
    found.write("backup")
    found.run("dump", found.dump)
    shutil.rmtree(found.state / "h2")
    found.run("prepare", found.dump)
    found.run("swap")
    assert found.read() == "backup"
    found.run("back")
    assert found.read() == ""


# --- folders of backups ---


def play(folder: Path, tasks: dict[str, list[str]], show: str = "", **variables: Any) -> str:
    """Run tasks of the role, by file and name, on this machine; returns what an expression is afterwards."""
    every = [
        task
        for file, names in tasks.items()
        for task in flat(yaml.safe_load((role_path("iam") / "tasks" / "keycloak" / file).read_text(encoding="utf-8")))
        if task["name"] in names
    ]
    assert len(every) == sum(map(len, tasks.values()))
    every.append({"ansible.builtin.copy": {"content": "{{ " + (show or "''") + " }}", "dest": str(folder / "shown")}})
    role = yaml.safe_load((role_path("iam") / "vars" / "main.yml").read_text(encoding="utf-8"))
    known = {"iam_backup_pattern": role["iam_backup_pattern"], "iam_site_name": "local", **variables}
    content = [{"hosts": "localhost", "gather_facts": False, "vars": known, "tasks": every}]
    (folder / "play.yml").write_text(json.dumps(content), encoding="utf-8")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [program, str(folder / "play.yml")],
        cwd=repo_root(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return (folder / "shown").read_text(encoding="utf-8")


def flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks and those in their blocks."""
    return [one for task in tasks for one in [task, *flat(task.get("block", []))]]


def test_the_newest_backup_is_the_last_one_by_name_that_is_whole(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    whole = ["iam-local-20250102T000000Z", "iam-local-20250101T235959Z", "iam-local-20240101T000000Z"]
    strange = ["iam-local-20260101T000000Z.copy", "iam-other-20270101T000000Z", "iam-local-b-20270101T000000Z", "old"]
    for age, name in enumerate([*whole, *strange]):
        (backups / name).mkdir(parents=True)
        (backups / name / "manifest.json").write_text("{}", encoding="utf-8")
        # The oldest by name is the youngest by its times.
        for path in (backups / name / "manifest.json", backups / name):
            os.utime(path, (1_700_000_000 + age, 1_700_000_000 + age))
    (backups / "iam-local-20280101T000000Z").mkdir()
    shutil.copytree(backups / whole[0], backups / "old" / "iam-local-20290101T000000Z")
    chosen = play(
        tmp_path,
        {"restore.yml": ["List the backups", "Choose the backup"]},
        "iam_restore_folder",
        iam_backup_dir=str(backups),
        iam_restore_from="",
    )
    assert chosen == str(backups / whole[0])


def test_folders_of_backups_are_for_their_owner_and_the_sites_own_is_as_the_site_has_it(tmp_path: Path) -> None:
    sites_own, ours = tmp_path / "own", tmp_path / "ours"
    sites_own.mkdir(mode=0o750)
    sites_own.chmod(0o750)
    for folder in (sites_own, ours):
        play(
            tmp_path,
            {"backup.yml": ["Make folders on the control machine that only its user reads"]},
            iam_backup_dir=str(folder),
            iam_backup_folder=str(folder / "iam-local-20250101T000000Z"),
        )
    modes = {str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in tmp_path.glob("o*/**")}
    assert modes == {
        "own": "0o750",
        "own/iam-local-20250101T000000Z": "0o700",
        "ours": "0o700",
        "ours/iam-local-20250101T000000Z": "0o700",
    }


# --- what a restore says ---


@pytest.mark.parametrize(
    ("failing", "verbs", "said"),
    [
        ([], ["swap", "forget"], ""),
        (["forget"], ["swap", "forget"], "non-zero return code"),
        (
            ["swap"],
            ["swap", "back", "forget"],
            "the database of before is in use again (found in task Use the restored",
        ),
        (["realm"], ["swap", "back", "forget"], "the database of before is in use again (found in task Realm: No;"),
        (["realm", "service"], ["swap", "back", "forget"], "in its place again, but Keycloak does not run on it"),
        (["realm", "back"], ["swap", "back"], "not in use again; it is kept on the host (found in task Realm"),
    ],
)
def test_a_restore_says_which_database_is_in_use(
    tmp_path: Path, failing: list[str], verbs: list[str], said: str
) -> None:
    role = tmp_path / "roles" / "iam"
    shutil.copytree(role_path("iam") / "tasks" / "keycloak", role / "tasks")
    exchange = role / "tasks" / "exchange.yml"
    # In place of what needs a host.
    text = exchange.read_text(encoding="utf-8").replace("deephdc.testbed.service:", "ansible.builtin.set_fact:")
    exchange.write_text(text.replace("        name: keycloak\n", ""), encoding="utf-8")
    for name in ("service", "realm", "impostors"):
        # The service fails only once the database of before is back.
        when = "back" if name == "service" else ""
        fails = f"{name in failing} and lookup('file', '{tmp_path}/verbs') is search('{when}')"
        task = {
            "name": name.title(),
            "ansible.builtin.assert": {"that": f"not ({fails})", "fail_msg": "No. Next: look"},
        }
        (role / "tasks" / f"{name}.yml").write_text(json.dumps([task]), encoding="utf-8")
    (role / "files").mkdir()
    script = f'#!/bin/sh\necho $1 >>{tmp_path}/verbs\ncase " {" ".join(failing)} " in *" $1 "*) exit 1;; esac\n'
    (role / "files" / "dev-file.sh").write_text(script, encoding="utf-8")
    use = {"ansible.builtin.include_role": {"name": str(role), "tasks_from": "exchange"}}
    known = {"iam_database": "dev-file", "iam_restore_folder": "FOLDER"}
    content = [{"hosts": "localhost", "gather_facts": False, "vars": known, "tasks": [use]}]
    (tmp_path / "play.yml").write_text(json.dumps(content), encoding="utf-8")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    argv = [program, str(tmp_path / "play.yml")]
    done = subprocess.run(argv, cwd=repo_root(), check=False, capture_output=True, text=True)
    assert (done.returncode == 0) == (said == ""), done.stdout
    assert said in " ".join(done.stdout.split()), done.stdout
    assert (tmp_path / "verbs").read_text(encoding="utf-8").split() == verbs
