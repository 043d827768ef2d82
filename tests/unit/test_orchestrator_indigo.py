"""INDIGO's orchestrator is rendered and checked as far as that goes without its image; it is not exercised here."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import secrets, sites
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks
from tests.unit.container_programs import (
    ask,
    certificate,
    free_port,
    mariadb_server,
    need,
    nginx,
    query,
    service_of,
    shared,
    something_behind,
    systemd_says,
)

pytestmark = pytest.mark.usefixtures("distribution_programs")

ROLE = "orchestrator"
HOST = "paas1.ifca.example"
# What the publisher's documentation (infn-datacloud/orchestrator, gitbook/how_to_deploy.md) and the image's Dockerfile
# name, and two names that Spring Boot itself reads.
PUBLISHED = {
    "CMDB_URL", "CPR_URL", "IM_URL", "JAVA_OPTS", "ORCHESTRATOR_DB_ENDPOINT", "ORCHESTRATOR_DB_NAME",
    "ORCHESTRATOR_DB_PWD", "ORCHESTRATOR_DB_USER", "ORCHESTRATOR_URL", "SLAM_URL", "WORKFLOW_DB_ENDPOINT",
    "WORKFLOW_DB_NAME", "WORKFLOW_DB_PWD", "WORKFLOW_DB_USER",
}  # fmt: skip
OTHERS = {"SERVER_ADDRESS", "SERVER_PORT"}
DIGEST = f"sha256:{'a' * 64}"
SETTINGS: dict[str, Any] = {
    "orchestrator_backend": "indigo",
    "orchestrator_indigo_repository": "registry.ifca.example:5000/indigopaas/orchestrator",
    "orchestrator_indigo_digest": DIGEST,
    **{f"orchestrator_indigo_{name}_url": f"https://{name}.example.org/{name}" for name in ("cmdb", "slam", "cpr")},
}
FACTS: dict[str, Any] = {
    "distribution": "Debian", "distribution_version": "13", "distribution_major_version": "13", "os_family": "Debian",
    "architecture": "x86_64", "memtotal_mb": 8192,
    "deephdc": {"listening": [], "packages": [], "cgroup_version": 2, "python": "3.13"},
}  # fmt: skip


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One host more for the site ifca, with the orchestrator and the Infrastructure Manager."""
    folder = tmp_path_factory.mktemp("inventory")
    groups: dict[str, Any] = {
        name: {"hosts": {HOST: {}}} for name in ("orchestrator", "infrastructure_manager", "cloud_info_provider")
    }
    hosts = {HOST: {"ansible_host": "192.0.2.22"}}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return folder


def site(inventory: Path, facts: dict[str, Any] | None = None, **settings: Any) -> SiteVariables:
    folders = [sites.inventories() / "common", sites.inventories() / "ifca", inventory]
    found = SiteVariables(folders, extra={**dict.fromkeys(secrets.names(), "5" * 64), **SETTINGS, **settings})
    found.give_facts({**FACTS, **(facts or {})})
    return found


@cache
def usual(inventory: Path) -> SiteVariables:
    """The site without settings of its own, read once."""
    return site(inventory)


def rendered(inventory: Path, template: str, **settings: Any) -> str:
    """A template of the backend, or one of role common that it uses, with the site's settings."""
    found = site(inventory, **settings) if settings else usual(inventory)
    variables = found.variables(HOST, ROLE, {"orchestrator_indigo_account": {"uid": 998, "group": 997}})
    own = role_path(ROLE) / "templates" / "indigo" / template
    return found.render_file(own, variables) if own.is_file() else shared(found, variables, "indigo", template)


def environment(inventory: Path, **settings: Any) -> dict[str, str]:
    lines = rendered(inventory, "indigo-orchestrator.env.j2", **settings).splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def application(inventory: Path, **settings: Any) -> Any:
    return yaml.safe_load(rendered(inventory, "application.yml.j2", **settings))


def unit(inventory: Path, **settings: Any) -> dict[str, str]:
    return service_of(rendered(inventory, "indigo-orchestrator.service.j2", **settings))


# --- settings ---


def test_only_names_that_the_publisher_reads_are_set(inventory: Path) -> None:
    assert set(environment(inventory)) == PUBLISHED | OTHERS


def test_clients_reach_it_where_the_embedded_one_is(inventory: Path) -> None:
    found = environment(inventory)
    assert found["ORCHESTRATOR_URL"] == "https://orchestrator.ifca.example:8444"
    assert found["IM_URL"] == "https://im.ifca.example:8800"
    assert "listen 192.0.2.22:8444 ssl;" in rendered(inventory, "nginx.conf.j2")


def test_only_the_proxy_on_the_host_reaches_it(inventory: Path) -> None:
    found = environment(inventory)
    assert (found["SERVER_ADDRESS"], found["SERVER_PORT"]) == ("127.0.0.1", "8081")
    assert {found["ORCHESTRATOR_DB_ENDPOINT"], found["WORKFLOW_DB_ENDPOINT"]} == {"127.0.0.1:3306"}
    assert "bind-address = 127.0.0.1" in rendered(inventory, "mariadb/server.cnf.j2")
    assert application(inventory)["server"] == {"use-forward-headers": True}


def test_a_service_that_it_can_do_without_is_named_where_there_is_one(inventory: Path) -> None:
    found = environment(
        inventory,
        orchestrator_indigo_monitoring_url="https://m.example",
        orchestrator_indigo_vault_url="https://v.example",
    )
    assert (found["MONITORING_URL"], found["VAULT_URL"]) == ("https://m.example", "https://v.example")


def test_people_are_known_by_the_site_s_issuer(inventory: Path) -> None:
    oidc = application(inventory)["oidc"]
    assert oidc["enabled"] is True
    (entry,) = oidc["iam-properties"].items()
    assert entry[0] == "[https://iam.ifca.example/]"
    assert entry[1]["orchestrator"]["client-id"] == "orchestrator"
    assert {"openid", "profile", "offline_access"} <= set(entry[1]["orchestrator"]["scopes"])
    assert (entry[1]["audience"], entry[1]["admingroup"]) == ("orchestrator", "administrators")


def test_it_asks_for_what_its_publisher_wants_of_any_issuer(inventory: Path) -> None:
    (entry,) = application(inventory, iam_backend="keycloak")["oidc"]["iam-properties"].values()
    assert {"openid", "profile", "offline_access"} <= set(entry["orchestrator"]["scopes"])


def test_a_site_adds_properties_and_cannot_change_what_the_role_relies_on(inventory: Path) -> None:
    added = {"slam": {"service-version": "v2"}, "spring": {"jta": {"log-dir": "/tmp", "enabled": True}}}
    found = application(inventory, orchestrator_indigo_properties=added)
    assert found["slam"] == {"service-version": "v2"}
    assert found["spring"]["jta"] == {"log-dir": "/var/lib/indigo-orchestrator", "enabled": True}


def test_secrets_are_the_sites_and_stay_in_their_files(inventory: Path) -> None:
    found = environment(inventory)
    (entry,) = application(inventory)["oidc"]["iam-properties"].values()
    own = {found["ORCHESTRATOR_DB_PWD"], found["WORKFLOW_DB_PWD"], entry["orchestrator"]["client-secret"]}
    assert len(own) == 2
    assert min(map(len, own)) >= 40
    text = rendered(inventory, "indigo-orchestrator.service.j2") + rendered(inventory, "nginx.conf.j2")
    assert not [value for value in own if value in text]
    other = environment(inventory, iam_seed="6" * 64)
    assert other["ORCHESTRATOR_DB_PWD"] not in own


def test_files_with_secrets_are_closed(inventory: Path) -> None:
    tasks = usual(inventory).trusted_yaml(role_path(ROLE) / "tasks" / "indigo" / "service.yml")
    files = [entry for task in tasks for entry in task["deephdc.testbed.service"]["files"]]
    closed = {Path(entry["path"]).name: entry["mode"] for entry in files if "secret_content" in entry}
    assert closed == {"indigo-orchestrator.env": "0600", "application.yml": "0600"}


# --- unit ---


def test_container_can_do_no_more_than_it_has_to(inventory: Path) -> None:
    words = unit(inventory)["ExecStart"].split()
    wanted = {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--user=998:997", "--pull=never"}
    assert wanted <= set(words)
    assert not [word for word in words if word.startswith(("--privileged", "--publish", "--env="))]
    state = "/var/lib/indigo-orchestrator"
    assert [word.removeprefix("--volume=") for word in words if word.startswith("--volume")] == [
        "/etc/deephdc/orchestrator/application.yml:/orchestrator/application.yml:ro",
        f"{state}:{state}",
        f"{state}/cacerts:/orchestrator/cacerts",
        "/etc/deephdc/orchestrator/proxy/site-authority.crt:/orchestrator/trusted_certs/deephdc1.crt:ro",
    ]


def test_a_site_without_an_authority_has_java_trust_whom_it_knows(inventory: Path) -> None:
    assert "trusted_certs" not in unit(inventory, site_ca_host="")["ExecStart"]


def test_image_is_named_by_digest(inventory: Path) -> None:
    assert unit(inventory)["ExecStart"].endswith(f" {SETTINGS['orchestrator_indigo_repository']}@{DIGEST}")


def test_systemd_accepts_the_unit(inventory: Path, tmp_path: Path) -> None:
    text = rendered(inventory, "indigo-orchestrator.service.j2")
    assert systemd_says(text, tmp_path) == []
    assert systemd_says(text.replace("Type=notify", "Typ=x"), tmp_path)


def test_it_counts_as_started_when_it_answers(inventory: Path) -> None:
    port = free_port()
    argv = unit(inventory, orchestrator_indigo_local_port=port, orchestrator_indigo_timeout=2)["ExecStartPost"].split()
    argv[0] = need("curl")
    assert subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode != 0

    def answer_late() -> None:
        time.sleep(1)
        with something_behind(port):
            done.wait(20)

    done = threading.Event()
    late = threading.Thread(target=answer_late)
    late.start()
    try:
        assert subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode == 0
    finally:
        done.set()
        late.join()


def test_password_of_the_registry_is_only_for_the_registry(inventory: Path) -> None:
    (name,) = json.loads(rendered(inventory, "registry.json.j2"))["auths"]
    assert name == "registry.ifca.example:5000"
    elsewhere = rendered(
        inventory, "registry.json.j2", orchestrator_indigo_repository="docker.io/indigopaas/orchestrator"
    )
    assert json.loads(elsewhere) == {"auths": {}}


# --- databases, on a real MariaDB ---


@pytest.fixture(scope="module")
def mariadb(
    inventory: Path, tmp_path_factory: pytest.TempPathFactory, distribution_programs: None
) -> Iterator[list[str]]:
    """A MariaDB with the settings that are rendered for it; the client's command line."""
    folder = tmp_path_factory.mktemp("mariadb")
    settings = folder / "settings.cnf"
    parts = ("mariadb/server.cnf.j2", "mariadb/settings.cnf.j2")
    settings.write_text("\n".join(rendered(inventory, part) for part in parts))
    with mariadb_server(folder, settings) as client:
        yield client


def look(inventory: Path, client: list[str]) -> int:
    """Exit status of the role's own look for the databases, as this server's root."""
    found = usual(inventory)
    (task,) = (
        task
        for task in found.trusted_yaml(role_path("common") / "tasks" / "mariadb.yml")
        if task.get("register") == "common_mariadb_found"
    )
    variables = found.variables(HOST, ROLE)
    given = {"common_mariadb": found.render(variables["orchestrator_indigo_databases"], variables)}
    argv = found.render(task["ansible.builtin.command"]["argv"], found.variables(HOST, "common", given))
    execute = [word for word in argv if word.startswith("--execute=")]
    return subprocess.run([*client, *execute], capture_output=True, check=False).returncode


def test_server_takes_values_as_large_as_the_publisher_asks_for(mariadb: list[str]) -> None:
    assert query(mariadb, "SELECT @@max_allowed_packet") == str(256 * 1024 * 1024)
    assert query(mariadb, "SELECT @@bind_address") == "127.0.0.1"


def test_both_databases_are_looked_for_and_made_again_without_harm(inventory: Path, mariadb: list[str]) -> None:
    query(mariadb, "DROP DATABASE IF EXISTS indigo_orchestrator; DROP DATABASE IF EXISTS indigo_workflow")
    assert look(inventory, mariadb) == 1
    statements = rendered(inventory, "mariadb/databases.sql.j2")
    query(mariadb, statements)
    query(mariadb, statements)
    assert look(inventory, mariadb) == 0
    grants = query(mariadb, "SHOW GRANTS FOR 'indigo_orchestrator'@'127.0.0.1'").splitlines()
    assert len(grants) == 3, "nothing else is granted"
    assert {"indigo_orchestrator", "indigo_workflow"} == {grant.split("`")[1] for grant in grants[1:]}
    query(mariadb, "DROP DATABASE indigo_workflow")
    assert look(inventory, mariadb) == 1


def test_the_longest_key_of_the_publisher_s_tables_fits(inventory: Path, mariadb: list[str]) -> None:
    query(mariadb, rendered(inventory, "mariadb/databases.sql.j2"))
    columns = ", ".join(f"c{number} VARCHAR(255) NOT NULL" for number in range(3))
    query([*mariadb, "indigo_orchestrator"], f"CREATE OR REPLACE TABLE t ({columns}, UNIQUE (c0, c1, c2))")
    query([*mariadb, "indigo_orchestrator"], "INSERT INTO t VALUES ('Å', 'ß', '模型')")


# --- nginx ---


@pytest.fixture
def proxy(inventory: Path, tmp_path: Path) -> Iterator[int]:
    """Nginx with the site's configuration before something that answers; its port."""
    certificate(tmp_path / "proxy", "orchestrator.ifca.example")
    port = free_port()
    with something_behind() as behind:
        own = rendered(
            inventory, "nginx.conf.j2",
            orchestrator_folder=str(tmp_path), orchestrator_address="127.0.0.1", orchestrator_port=port,
            orchestrator_indigo_local_port=behind,
        )  # fmt: skip
        with nginx(tmp_path, own, port):
            yield port


def test_orders_get_through_as_they_are(proxy: int) -> None:
    status, got = ask(proxy, "/deployments/?userGroup=a", {"Authorization": "Bearerx"}, b"x" * 3_000_000)
    assert (status, got["path"], got["size"]) == (200, "/deployments/?userGroup=a", 3_000_000)
    assert got["headers"]["authorization"] == "Bearerx"
    assert got["headers"]["host"] == f"127.0.0.1:{proxy}"
    assert ask(proxy, "/deployments/", {}, b"x" * 20_000_000)[0] == 413


def test_what_a_client_says_about_the_way_is_taken_off(proxy: int) -> None:
    forged = {
        "Forwarded": "host=evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Ssl": "off", "X-Forwarded-For": "192.0.2.99", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "1",
    }  # fmt: skip
    _, got = ask(proxy, "/info", forged)
    told = {name: value for name, value in got["headers"].items() if "forwarded" in name}
    assert told == {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-port": str(proxy)}


# --- prechecks ---


def refusals(inventory: Path, facts: dict[str, Any] | None = None, **settings: Any) -> str:
    verdicts = list(prechecks(site(inventory, facts, **settings), HOST, ROLE))
    assert None not in verdicts, "a check could not be worked out"
    problems = [problem for verdict in verdicts for problem in verdict or []]
    assert all(problem["host"] == HOST and problem["next_step"] for problem in problems)
    return "\n".join(str(problem) for problem in problems)


def listening(port: int, program: str) -> dict[str, Any]:
    return {"deephdc": {**FACTS["deephdc"], "listening": [{"port": port, "program": program}]}}


def test_a_good_site_passes_and_the_embedded_one_is_not_held_to_it(inventory: Path) -> None:
    assert refusals(inventory) == ""
    assert refusals(inventory, orchestrator_backend="embedded", orchestrator_indigo_digest="") == ""
    assert refusals(inventory, site_organisations=[], orchestrator_secret="short") == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"orchestrator_indigo_repository": ""}, "out of reach"),
        ({"orchestrator_indigo_digest": ""}, "needed sha256:HASH of v4.0.1"),
        ({"orchestrator_indigo_digest": "v4.0.1"}, "needed sha256:HASH of v4.0.1"),
        ({"orchestrator_indigo_digest": f"{DIGEST}0"}, "needed sha256:HASH of v4.0.1"),
        (
            {"orchestrator_indigo_cmdb_url": "", "orchestrator_indigo_slam_url": ""},
            "found nothing in orchestrator_indigo_cmdb_url, orchestrator_indigo_slam_url, needed",
        ),
        ({"orchestrator_indigo_cpr_url": ""}, "found nothing in orchestrator_indigo_cpr_url, needed"),
        ({"orchestrator_indigo_im_url": ""}, "found nothing in orchestrator_indigo_im_url, needed"),
        ({"orchestrator_indigo_cmdb_url": "http://cmdb.example.org"}, "tokens cannot be sent"),
        ({"orchestrator_indigo_vault_url": "http://vault.example.org"}, "tokens cannot be sent"),
        ({"orchestrator_indigo_slam_url": "https://a\nSERVER_ADDRESS=0.0.0.0"}, "tokens cannot be sent"),
        ({"orchestrator_client": {}}, "found no client with a secret of 0 characters"),
        ({"orchestrator_client": {"id": "a", "secret": "s" * 40, "scopes": []}}, "and 0 scopes"),
        ({"orchestrator_administrators": ""}, "does not start like this"),
        ({"orchestrator_indigo_audience": ""}, "does not start like this"),
        ({"orchestrator_indigo_database_secret": "short"}, "found 5 characters"),
        (
            {"orchestrator_indigo_properties": {"oidc": {"enabled": False}}},
            "found oidc in orchestrator_indigo_properties",
        ),
        ({"orchestrator_indigo_properties": {"oidc.enabled": False}}, "found oidc.enabled in"),
        ({"orchestrator_indigo_properties": {"SERVER_ADDRESS": "0.0.0.0"}}, "found SERVER_ADDRESS in"),
        ({"iam_issuer": ""}, "nobody to ask who people are"),
    ],
)
def test_a_wrong_inventory_is_refused(inventory: Path, settings: dict[str, Any], said: str) -> None:
    assert said in refusals(inventory, **settings)


def test_a_service_of_the_host_itself_needs_no_certificate(inventory: Path) -> None:
    assert refusals(inventory, orchestrator_indigo_cpr_url="http://127.0.0.1:8082/cpr") == ""


@pytest.mark.parametrize(
    ("backend", "facts", "said"),
    [
        ("indigo", {"distribution": "RedHat", "distribution_major_version": "9"}, "not for this distribution"),
        ("indigo", {"memtotal_mb": 2000}, "too little memory"),
        ("indigo", listening(8444, "apache2"), "port 8444 is in use (found apache2"),
        ("indigo", listening(8081, "tomcat"), "loopback address is in use"),
        (
            "indigo",
            listening(8444, "python3"),
            "other orchestrator is still there (found python3 listening on port 8444",
        ),
        ("embedded", listening(8444, "nginx"), "other orchestrator is still there (found nginx listening on port 8444"),
        ("embedded", listening(8444, "python3"), ""),
        ("indigo", listening(8444, "nginx"), ""),
        ("indigo", listening(3306, "mariadbd"), ""),
    ],
)
def test_an_unsuitable_host_is_refused(inventory: Path, backend: str, facts: dict[str, Any], said: str) -> None:
    found = refusals(inventory, facts, orchestrator_backend=backend)
    assert said in found
    assert bool(said) == bool(found)


def test_only_backends_that_there_are_can_be_chosen(inventory: Path) -> None:
    found = usual(inventory)
    variables = found.variables(HOST, ROLE)
    assert found.argument_errors(ROLE, "main", variables) == []
    assert "orchestrator_backend" in str(
        found.argument_errors(ROLE, "main", {**variables, "orchestrator_backend": "a"})
    )


def test_registry_answers_for_the_image_of_a_site_without_upstream(inventory: Path) -> None:
    assert yaml.safe_load((repo_root() / "artifacts/indigo-orchestrator.yml").read_text())["version"] == "4.0.1"
    found = usual(inventory)
    default = found.trusted_yaml(role_path(ROLE) / "defaults" / "main.yml")["orchestrator_indigo_repository"]
    for sources, image in ((["upstream", "package"], "docker.io/indigopaas/orchestrator"), (["package"], "")):
        variables = found.variables(HOST, ROLE, {"artifact_sources": sources})
        assert str(found.render(default, variables)).strip() == image


# --- the other backend ---


def units(inventory: Path, backend: str) -> dict[str, str]:
    """Units that a backend's tasks keep, and in which state."""
    paths = sorted((role_path(ROLE) / "tasks" / backend).glob("*.yml"))
    tasks = [task for path in paths for task in usual(inventory).trusted_yaml(path)]
    kept = [task["deephdc.testbed.service"] for task in tasks if "deephdc.testbed.service" in task]
    return {one["name"]: one.get("state", "started") for one in kept}


def test_each_backend_keeps_the_other_one_stopped(inventory: Path) -> None:
    assert units(inventory, "embedded") == {"deep-orchestrator": "started", "indigo-orchestrator": "stopped"}
    assert units(inventory, "indigo") == {
        "deep-orchestrator": "stopped", "indigo-orchestrator": "started", "nginx": "started",
    }  # fmt: skip
    (alone,) = usual(inventory).trusted_yaml(role_path(ROLE) / "tasks/embedded/alone.yml")
    (removed,) = alone["deephdc.testbed.service"]["files"]
    assert removed == {"path": "{{ orchestrator_indigo_site }}", "state": "absent"}


@pytest.mark.parametrize(("backend", "process"), [("embedded", "python3"), ("indigo", "nginx")])
def test_what_a_host_may_have_is_declared_for_each_backend(inventory: Path, backend: str, process: str) -> None:
    found = usual(inventory)
    declared = found.trusted_yaml(repo_root() / "tests" / "acceptance" / "declared.yml")["orchestrator"]
    variables = {**found.variables(HOST, ROLE), "orchestrator_backend": backend}
    shown = {
        kind: [one for entry in entries if (one := found.render(entry, variables))]
        for kind, entries in declared.items()
    }
    assert shown["listeners"][0] == {"port": 8444, "width": "host", "process": process}
    started = {unit for unit, state in units(inventory, backend).items() if state == "started"}
    assert set(shown["units"]) == started | ({"mariadb"} if backend == "indigo" else set())
    assert len(shown["certificates"]) == 1
