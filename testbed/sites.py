"""Sites: the folders of ``inventories/`` and the local testbeds, checked, deployed and verified by the same calls."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from testbed import console, state
from testbed import secrets as site_secrets
from testbed.errors import CHECK_FAILED, WRONG_USAGE, DeepError
from testbed.files import exclusive
from testbed.paths import repo_root, site_state_dir, state_dir
from testbed.playbook import PlaybookResult, ansible_environment, run_playbook
from testbed.run import run, tail

COMMON = "common"
TESTBED_SITE = "local"
DEFAULT_NAME = "local"
# An option that means nothing for the site, such as a --limit without a host.
PYTEST_USAGE_ERROR = 4
SECRETS_FILE = Path("group_vars") / "all" / "secrets.yml"
# What the acceptance suite leaves in the folder of its report.
RESULTS = ("verdict.json", "junit.xml", "progress.txt", "suite.log")


@dataclass(frozen=True)
class Site:
    """One folder of ``inventories/``; ``hosts`` counts what its own ``hosts.yml`` declares."""

    name: str
    path: Path
    hosts: int
    simulated: bool
    secrets: bool

    def as_dict(self) -> dict[str, Any]:
        """The site as a JSON object."""
        return {**asdict(self), "path": str(self.path)}


def inventories() -> Path:
    """The folder that holds one folder per site."""
    return repo_root() / "inventories"


def site_names() -> list[str]:
    """Every site that can be named, without ``common``, which all share."""
    return sorted(p.name for p in inventories().iterdir() if p.is_dir() and p.name != COMMON)


def list_sites() -> list[Site]:
    """Every site with what its files say, without asking any host."""
    return [_describe(name) for name in site_names()]


def _describe(name: str) -> Site:
    path = inventories() / name
    groups = declared_groups(path)
    return Site(
        name=name,
        path=path,
        hosts=len({host for hosts in groups.values() for host in hosts}),
        simulated=bool(groups.get("gpu_simulated")) or name == TESTBED_SITE,
        secrets=(path / SECRETS_FILE).is_file(),
    )


def declared_groups(path: Path) -> dict[str, list[str]]:
    """Group -> host names as written in ``hosts.yml`` (ranges such as gpu[1:4] are one entry)."""
    file = path / "hosts.yml"
    found: dict[str, list[str]] = {}
    if file.is_file():
        _walk(yaml.safe_load(file.read_text(encoding="utf-8")) or {}, found)
    return found


def _walk(groups: dict[str, Any], found: dict[str, list[str]]) -> None:
    for name, group in groups.items():
        found.setdefault(name, []).extend((group or {}).get("hosts") or {})
        _walk((group or {}).get("children") or {}, found)


def site_path(site: str) -> Path:
    """The folder of ``site``; raises ``DeepError`` (exit code 2) for a name that has none."""
    if site not in site_names():
        raise DeepError(
            f"no site {site}",
            found=site,
            needed=f"one of: {', '.join(site_names())}",
            next_step=f"copy an existing folder of {inventories()} to {inventories() / site}",
            exit_code=WRONG_USAGE,
        )
    return inventories() / site


def generated_inventory(name: str = DEFAULT_NAME) -> Path:
    """Where ``deep testbed up`` writes the hosts of the testbed ``name``."""
    return state_dir(name) / "inventory"


def vault_password_file(site: str, name: str | None = None) -> Path:
    """The file that opens the site's secrets; ``$ANSIBLE_VAULT_PASSWORD_FILE`` overrides for a production site."""
    own = os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE")
    return Path(own) if own and site != TESTBED_SITE else state_folder(site, name) / "vault-password"


def state_folder(site: str, name: str | None = None) -> Path:
    """Where what is known of a site, or of the testbed ``name``, is kept."""
    return state_dir(name or DEFAULT_NAME) if site == TESTBED_SITE else site_state_dir(site)


def inventory_sources(site: str, name: str | None = None) -> list[Path]:
    """The inventory folders of a site in order of rising precedence: common, the site, a testbed's own."""
    sources = [inventories() / COMMON, site_path(site)]
    generated = generated_inventory(name or DEFAULT_NAME)
    if site == TESTBED_SITE and generated.is_dir():
        sources.append(generated)
    return sources


def inventory_args(site: str, name: str | None = None) -> list[str]:
    """The ``-i`` arguments of every Ansible program for a site, and the vault's where its password file exists."""
    args = [part for source in inventory_sources(site, name) for part in ("-i", str(source))]
    password = vault_password_file(site, name)
    return [*args, "--vault-password-file", str(password)] if password.is_file() else args


def logs_dir(site: str, name: str | None = None) -> Path:
    """Where logs and verdicts of a site are kept."""
    return state_folder(site, name) / "logs"


def public_dir(site: str, name: str | None = None) -> Path:
    """Where a deployment leaves what everybody may know: ``ca.crt`` of the site and ``kubernetes-ca.crt``."""
    return state_folder(site, name) / "public"


def backup_dir(site: str, name: str | None = None) -> Path:
    """Where the playbook ``backup`` leaves backups."""
    return state_folder(site, name) / "backups"


def _log_file(site: str, name: str | None, what: str) -> Path:
    return logs_dir(site, name) / f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log"


def secrets(site: str, name: str | None = None) -> dict[str, Any]:
    """Make the secrets that the site lacks; returns ``{ok, site, made, secrets, file, password_file}``, no value.

    Both files are of mode 0600. Those of the testbed are in its state, a production site's beside its inventory, to be
    committed encrypted; the password file never is.
    """
    site_path(site)
    need_testbed(site, name)
    folder = generated_inventory(name or DEFAULT_NAME) if site == TESTBED_SITE else inventories() / site
    file, password = folder / SECRETS_FILE, vault_password_file(site, name)
    made = site_secrets.ensure(file, password)
    return {
        "ok": True,
        "site": site,
        "made": made,
        "secrets": site_secrets.names(),
        "file": str(file),
        "password_file": str(password),
    }


# --- deploy, verify ------------------------------------------------------------------------------------------------


@contextmanager
def alone(site: str, name: str | None = None) -> Iterator[None]:
    """Keep every other command of this machine that changes the site, or the testbed ``name``, out."""
    need_testbed(site, name)
    if site == TESTBED_SITE:
        with state.lock(name or DEFAULT_NAME):
            yield
        return
    with exclusive(site_state_dir(site) / "lock", f"site {site}", "wait for it to end"):
        yield


def play(
    site: str,
    playbook: str = "site",
    *,
    variables: Sequence[str] = (),
    limit: str | None = None,
    check_mode: bool = False,
    name: str | None = None,
) -> PlaybookResult:
    """Run one playbook of ``playbooks/`` on the site, by default all layers in order; call it inside :func:`alone`.

    ``variables`` are ``NAME=VALUE`` as for ``--extra-vars``. Raises ``DeepError`` naming host and task.
    """
    need_testbed(site, name)
    options = [option for variable in variables for option in ("--extra-vars", variable)]
    options += ["--limit", limit] if limit else []
    options += ["--check", "--diff"] if check_mode else []
    public = public_dir(site, name)
    public.mkdir(parents=True, exist_ok=True)
    return run_playbook(
        playbook,
        inventory_args(site, name),
        log=_log_file(site, name, f"{playbook}-check" if check_mode else playbook),
        extra_args=options,
        facts=facts_dir(site, name),
        environment={"DEEP_SITE_PUBLIC_DIR": str(public), "DEEP_SITE_BACKUP_DIR": str(backup_dir(site, name))},
        title=f"{playbook}{' (check)' if check_mode else ''} {site}",
    )


def facts_dir(site: str, name: str | None = None) -> Path:
    """The fact cache of a site, apart from every other's: two testbeds have hosts of the same names."""
    return state_folder(site, name) / "facts"


def need_testbed(site: str, name: str | None = None) -> None:
    """Raise ``DeepError`` for a site that there is not, and for a testbed that is not there."""
    site_path(site)
    if site == TESTBED_SITE and not generated_inventory(name or DEFAULT_NAME).is_dir():
        raise DeepError(
            f"there is no testbed {name or DEFAULT_NAME}",
            needed=str(generated_inventory(name or DEFAULT_NAME)),
            next_step=f"deep testbed up --name {name or DEFAULT_NAME}",
        )


def verify(
    site: str,
    *,
    name: str | None = None,
    select: str | None = None,
    limit: str | None = None,
    assess: bool = False,
    output: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run the acceptance suite against a site and return its verdict ``{ok, site, simulated, checks, failures, ...}``.

    ``select`` is a pytest ``-k`` expression; ``assess`` adds a look at the site as an attacker finds it. The folder
    named in the verdict (``report``), ``output`` where it is given, holds verdict.json, junit.xml and the log. Raises
    ``DeepError`` when the suite ends without a verdict.
    """
    need_testbed(site, name)
    report = output or logs_dir(site, name) / f"verify-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    report = report.absolute()
    report.mkdir(parents=True, exist_ok=output is not None)
    for earlier in RESULTS:
        (report / earlier).unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", *suite_args(site, name, report), *(["-k", select] if select else [])]
    argv += ["--limit", limit] if limit else []
    argv += ["--assess"] if assess else []
    with _follow(report / "progress.txt", f"verify {site}", quiet):
        done = run(argv, cwd=repo_root(), log=report / "suite.log", check=False, env=ansible_environment())
    verdict = report / "verdict.json"
    if not verdict.is_file():
        last = tail(report / "suite.log")
        raise DeepError(
            f"the acceptance suite ended without a verdict (exit status {done.returncode}):\n{last}",
            next_step=f"read the whole log: {report / 'suite.log'}",
            exit_code=WRONG_USAGE if done.returncode == PYTEST_USAGE_ERROR else CHECK_FAILED,
        )
    return {**json.loads(verdict.read_text(encoding="utf-8")), "report": str(report)}


def suite_args(site: str, name: str | None, report: Path) -> list[str]:
    """Arguments of pytest for the acceptance suite of a site, results going to the folder ``report``."""
    args = [str(repo_root() / "tests" / "acceptance"), "-p", "no:cacheprovider", "--site", site]
    args += [part for source in inventory_sources(site, name) for part in ("--site-inventory", str(source))]
    password = vault_password_file(site, name)
    args += ["--vault-password-file", str(password)] if password.is_file() else []
    return [
        *args,
        "--verdict",
        str(report / "verdict.json"),
        "--progress",
        str(report / "progress.txt"),
        "--junitxml",
        str(report / "junit.xml"),
    ]


@contextmanager
def _follow(progress_file: Path, title: str, quiet: bool) -> Iterator[None]:
    """Show the last line that the suite wrote to ``progress_file`` on one live line."""
    if quiet or not console.err.is_terminal:
        yield
        return
    stop = threading.Event()
    with console.err.status(title) as status:

        def watch() -> None:
            while not stop.wait(0.5):
                if progress_file.is_file():
                    status.update(f"{title}: {escape(progress_file.read_text(encoding='utf-8').strip())}")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
