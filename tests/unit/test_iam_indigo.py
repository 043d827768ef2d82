"""INDIGO IAM is rendered and checked as far as that goes without its image; it is not exercised here."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.secrets import derived_secret
from testbed import secrets, sites
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks
from tests.unit.container_programs import (
    ask,
    certificate,
    free_port,
    mariadb_server,
    nginx,
    query,
    service_of,
    shared,
    something_behind,
    systemd_says,
)

pytestmark = pytest.mark.usefixtures("distribution_programs")

HOST = "iam1.ifca.example"
SEED = "0123456789abcdef" * 4
# What the publisher's own application.yml reads (indigo-iam/iam, iam-login-service/src/main/resources, application.yml,
# application-prod.yml and, for the last one, application-mfa.yml), and a name that Spring Boot itself reads.
PUBLISHED = {
    "IAM_ACCESS_TOKEN_INCLUDE_AUTHN_INFO", "IAM_ACCESS_TOKEN_INCLUDE_SCOPE", "IAM_ACTUATOR_USER_PASSWORD",
    "IAM_ACTUATOR_USER_USERNAME", "IAM_BASE_URL", "IAM_CLIENT_REGISTRATION_ALLOW_FOR", "IAM_DB_HOST", "IAM_DB_NAME",
    "IAM_DB_PASSWORD", "IAM_DB_PORT", "IAM_DB_USERNAME", "IAM_DEFAULT_ACCESS_TOKEN_VALIDITY_SECONDS",
    "IAM_FORWARD_HEADERS_STRATEGY", "IAM_HOST", "IAM_ISSUER", "IAM_JWK_DEFAULT_KEY_ID", "IAM_KEY_STORE_LOCATION",
    "IAM_NOTIFICATION_DISABLE", "IAM_ORGANISATION_NAME", "IAM_PORT", "IAM_SESSION_TIMEOUT_SECS",
    "IAM_TOTP_MFA_PASSWORD_TO_ENCRYPT_AND_DECRYPT",
}  # fmt: skip
# The image's own command, from its Dockerfile, and Spring Boot's server.address.
OTHERS = {"IAM_JAVA_OPTS", "SERVER_ADDRESS"}
# Headers that INDIGO IAM takes a client's certificate from (its DefaultX509AuthenticationCredentialExtractor).
CERTIFICATE_HEADERS = [
    "X-SSL-Client-Cert", "X-SSL-Client-S-Dn", "X-SSL-Client-I-Dn", "X-SSL-Client-Serial", "X-SSL-Client-Verify",
    "X-SSL-Client-V-Start", "X-SSL-Client-V-End", "X-SSL-Protocol", "X-SSL-Server-Name",
]  # fmt: skip
KNOWN_HASH = "$2a$10$UZeOZKD1.dj5oiTsZKD03OETA9FXCKGqBuuijhsxYygZpOPtWMUni"  # of the word password
FIRST = "73f16d93-2441-4a50-88ff-85360d78c6b5"
IMAGE = {
    "iam_indigo_repository": "registry.ifca.example:5000/indigoiam/iam-login-service",
    "iam_indigo_digest": f"sha256:{'a' * 64}",
}
NAMES = {
    "iam_database_password": "d" * 64,
    "iam_seed": SEED,
    "iam_admin_secret": "a" * 64,
    "registry_password": "r" * 64,
}
FACTS: dict[str, Any] = {
    "distribution": "Debian", "distribution_version": "13", "distribution_major_version": "13", "os_family": "Debian",
    "architecture": "x86_64", "memtotal_mb": 8192, "deephdc": {"listening": [], "packages": [], "cgroup_version": 2},
}  # fmt: skip


def site(**settings: Any) -> SiteVariables:
    """The site ifca, which runs INDIGO IAM."""
    folders = [sites.inventories() / "common", sites.inventories() / "ifca"]
    extra = {**dict.fromkeys(secrets.names(), "0" * 64), **NAMES, **IMAGE, **settings}
    found = SiteVariables(folders, extra=extra)
    found.give_facts(FACTS)
    return found


def rendered(template: str, **settings: Any) -> str:
    """A template of the backend, or one of role common that it uses, with the site's settings."""
    found = site(**settings)
    given = {"iam_indigo_account": {"uid": 998, "group": 997}, **settings}
    variables = found.variables(HOST, "iam", given)
    own = role_path("iam") / "templates" / "indigo_iam" / template
    return found.render_file(own, variables) if own.is_file() else shared(found, variables, "indigo_iam", template)


def environment(**settings: Any) -> dict[str, str]:
    lines = rendered("indigo-iam.env.j2", **settings).splitlines()
    return dict(line.split("=", 1) for line in lines if line)


# --- environment ---


def test_only_names_that_the_publisher_reads_are_set() -> None:
    assert set(environment()) == PUBLISHED | OTHERS


def test_issuer_is_what_the_rest_of_the_site_believes() -> None:
    found = environment()
    assert found["IAM_ISSUER"] == "https://iam.ifca.example/"
    assert found["IAM_BASE_URL"] == "https://iam.ifca.example"
    assert site().variables(HOST)["iam_groups_claim"] == "groups"


def test_only_the_proxy_on_the_host_reaches_it() -> None:
    found = environment()
    assert found["SERVER_ADDRESS"] == "127.0.0.1"
    assert found["IAM_DB_HOST"] == "127.0.0.1"
    assert found["IAM_FORWARD_HEADERS_STRATEGY"] == "native"
    assert "bind-address = 127.0.0.1" in rendered("mariadb/server.cnf.j2")


def test_no_password_is_one_that_everybody_knows() -> None:
    known = site().variables(HOST, "iam")["iam_indigo_known_passwords"]
    assert "changeit" in known
    found = environment()
    passwords = [value for name, value in found.items() if re.search("PASSWORD|SECRET", name)]
    assert len(set(passwords)) == 3
    assert min(map(len, passwords)) >= 40
    assert not set(passwords) & set(known)


def test_a_site_adds_settings_and_changes_those_that_are_its_own() -> None:
    found = environment(
        iam_indigo_environment={"IAM_MAIL_HOST": "mail.ifca.example", "IAM_NOTIFICATION_DISABLE": "false"}
    )
    assert found["IAM_MAIL_HOST"] == "mail.ifca.example"
    assert found["IAM_NOTIFICATION_DISABLE"] == "false"


def test_first_key_signs() -> None:
    assert environment(iam_indigo_signing_keys=["rsa2", "rsa1"])["IAM_JWK_DEFAULT_KEY_ID"] == "rsa2"


# --- unit ---


def unit(**settings: Any) -> dict[str, str]:
    return service_of(rendered("indigo-iam.service.j2", **settings))


def test_container_can_do_no_more_than_it_has_to() -> None:
    words = unit()["ExecStart"].split()
    assert {
        "--read-only",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--user=998:997",
        "--pull=never",
    } <= set(words)
    assert not [word for word in words if word.startswith(("--privileged", "--publish", "--env="))]
    assert [word for word in words if word.startswith("--volume")] == [
        "--volume=/etc/deephdc/iam/keystore.jwks:/etc/deephdc/iam/keystore.jwks:ro"
    ]


def test_no_secret_is_on_a_command_line() -> None:
    text = rendered("indigo-iam.service.j2") + rendered("open.sh.j2") + rendered("nginx.conf.j2")
    assert not [value for value in environment().values() if len(value) >= 40 and value in text]


def test_image_is_named_by_digest() -> None:
    assert unit()["ExecStart"].endswith(f" {IMAGE['iam_indigo_repository']}@{IMAGE['iam_indigo_digest']}")


def test_marker_goes_with_the_service() -> None:
    marker = "/run/indigo-iam/open"
    assert unit()["RuntimeDirectory"] == "indigo-iam"
    assert unit()["ExecStartPost"] == "/etc/deephdc/iam/open"
    assert f"touch {marker}" in rendered("open.sh.j2")
    assert f"-f {marker}" in rendered("nginx.conf.j2")


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = rendered("indigo-iam.service.j2")
    assert systemd_says(text, tmp_path) == []
    assert systemd_says(text.replace("Type=notify", "Typ=x"), tmp_path)


def test_password_of_the_registry_is_only_for_the_registry() -> None:
    (entry,) = json.loads(rendered("registry.json.j2"))["auths"].items()
    assert entry[0] == "registry.ifca.example:5000"
    elsewhere = rendered("registry.json.j2", iam_indigo_repository="docker.io/indigoiam/iam-login-service")
    assert json.loads(elsewhere) == {"auths": {}}


# --- known passwords, on a real MariaDB ---


def crypt(password: str, setting: str) -> str:
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return bytes(library.crypt(password.encode(), setting.encode())).decode()


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A MariaDB of its own; the client's command line."""
    with mariadb_server(tmp_path_factory.mktemp("mariadb")) as client:
        yield client


@pytest.fixture
def tables(mariadb: list[str]) -> list[str]:
    """The columns that the statements touch, with what the publisher's migrations put there."""
    query(mariadb, f"DROP DATABASE IF EXISTS indigo_iam; {rendered('mariadb/databases.sql.j2')}")
    client = [*mariadb, "indigo_iam"]
    query(
        client,
        "CREATE TABLE iam_account (id BIGINT, uuid VARCHAR(36), username VARCHAR(128), password VARCHAR(128));"
        "CREATE TABLE client_details (id BIGINT, client_id VARCHAR(256), client_secret VARCHAR(2048));"
        f"INSERT INTO iam_account VALUES (1, '{FIRST}', 'admin', '{KNOWN_HASH}'), (2, 'u', 'member', '{KNOWN_HASH}');"
        f"INSERT INTO client_details VALUES (1, 'client', '{crypt('secret', KNOWN_HASH)}'), (2, 'other', 'secret');",
    )
    return client


def password_of(client: list[str], number: int) -> str:
    return query(client, f"SELECT password FROM iam_account WHERE id = {number}")


def first_password() -> str:
    """What a person who knows the site's secrets logs in with."""
    return derived_secret(SEED, "user", "admin")


@pytest.mark.parametrize("shipped", [KNOWN_HASH, "password"])
def test_known_passwords_are_replaced_once(tables: list[str], shipped: str) -> None:
    query(tables, f"UPDATE iam_account SET password = '{shipped}' WHERE id = 1")
    statements = rendered("known-passwords.sql.j2")
    assert query(tables, statements) == "0"
    after = password_of(tables, 1)
    assert re.fullmatch(r"\$2a\$10\$[./A-Za-z0-9]{53}", after)
    assert crypt(first_password(), after) == after
    assert crypt("password", after) != after
    assert password_of(tables, 2) == KNOWN_HASH, "what people chose is theirs"
    assert query(tables, statements) == "0"
    assert password_of(tables, 1) == after


def test_secret_of_the_sample_client_is_replaced(tables: list[str]) -> None:
    query(tables, rendered("known-passwords.sql.j2"))
    mine, other = query(tables, "SELECT client_secret FROM client_details ORDER BY id").splitlines()
    assert crypt("secret", mine) != mine
    assert other == "secret"
    query(tables, "UPDATE client_details SET client_secret = 'secret' WHERE id = 1")
    assert query(tables, rendered("known-passwords.sql.j2")) == "0"
    assert query(tables, "SELECT client_secret FROM client_details WHERE id = 1") != "secret"


def test_a_password_that_somebody_chose_stays(tables: list[str]) -> None:
    chosen = crypt("chosen by a person", KNOWN_HASH[:29])
    query(tables, f"UPDATE iam_account SET password = '{chosen}', username = 'somebody' WHERE id = 1")
    assert query(tables, rendered("known-passwords.sql.j2")) == "0"
    assert password_of(tables, 1) == chosen


def test_what_is_left_is_counted(tables: list[str]) -> None:
    count = rendered("known-passwords.sql.j2").split("-- What is left")[1].split("\n", 1)[1]
    assert query(tables, count) == "2"
    # A server whose crypt knows no bcrypt cannot tell, and must not say that all is well.
    query(tables, "UPDATE iam_account SET password = 'x'; DELETE FROM client_details;")
    assert query(tables, count.replace("ENCRYPT('password', known.hash)", "NULL")) == "1"


@pytest.mark.parametrize("secret", ["d" * 64, "it's \\ 'quoted'"])
def test_database_and_user_are_made_again_without_harm(mariadb: list[str], secret: str) -> None:
    statements = rendered("mariadb/databases.sql.j2", iam_database_password=secret)
    query(mariadb, statements)
    query(mariadb, statements)
    quoted = secret.replace("\\", "\\\\").replace("'", "''")
    grants = query(mariadb, f"SHOW GRANTS FOR 'indigo_iam'@'127.0.0.1'; SELECT PASSWORD('{quoted}')").splitlines()
    assert grants[-1] in grants[0]
    assert "ON `indigo_iam`.*" in grants[1]
    assert len(grants) == 3, "nothing else is granted"


# --- the door ---


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Nginx with the site's configuration before something that answers; its port and the marker's path."""
    certificate(tmp_path / "proxy", "iam.ifca.example")
    port, marker = free_port(), tmp_path / "open"
    with something_behind() as behind:
        own = rendered(
            "nginx.conf.j2",
            iam_folder=str(tmp_path), iam_indigo_marker=str(marker), iam_address="127.0.0.1", iam_port=port,
            iam_indigo_local_port=behind,
        )  # fmt: skip
        with nginx(tmp_path, own, port):
            yield port, marker


def test_nobody_gets_in_before_the_known_passwords_are_gone(door: tuple[int, Path]) -> None:
    port, marker = door
    for path in ("/", "/login", "/token", "/actuator/health", "/.well-known/openid-configuration"):
        assert ask(port, path)[0] == 503
    marker.touch()
    assert ask(port, "/login")[1]["path"] == "/login"
    marker.unlink()
    assert ask(port, "/login")[0] == 503


def test_forged_certificates_and_addresses_are_taken_off(door: tuple[int, Path]) -> None:
    port, marker = door
    marker.touch()
    forged = {
        **dict.fromkeys(CERTIFICATE_HEADERS, "SUCCESS"),
        "X-Forwarded-For": "192.0.2.99",
        "X-Forwarded-Proto": "http",
    }
    for path in ("/dashboard", "/actuator/health"):
        _, got = ask(port, path, forged)
        assert got["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert not [name for name in got["headers"] if name.startswith("x-ssl")], path
    assert ask(port, "/dashboard", forged)[1]["headers"]["x-forwarded-proto"] == "https"


def test_health_is_seen_and_the_rest_of_the_actuator_is_not(door: tuple[int, Path]) -> None:
    port, marker = door
    marker.touch()
    assert ask(port, "/actuator/health")[0] == 200
    assert [ask(port, path)[0] for path in ("/actuator", "/actuator/env", "/actuator/health/db")] == [404, 404, 404]


# --- opening it ---


@pytest.mark.parametrize(("left", "opened"), [("0", True), ("2", False), ("", False)])
def test_door_opens_only_when_nothing_is_left(tmp_path: Path, left: str, opened: bool) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "known-passwords.sql").write_text("SELECT 0;")
    for name, text in {"curl": "exit 0", "mariadb": f"cat >/dev/null; echo '{left}'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = rendered("open.sh.j2", iam_folder=str(tmp_path), iam_indigo_marker=str(marker))
    done = subprocess.run(
        ["sh"], input=script, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0, marker.exists()) == (opened, opened), done.stderr


def test_door_stays_closed_when_the_database_fails(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "known-passwords.sql").write_text("SELECT 0;")
    for name, text in {"curl": "exit 0", "mariadb": "echo 0; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = rendered("open.sh.j2", iam_folder=str(tmp_path), iam_indigo_marker=str(marker))
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    assert subprocess.run(["sh"], input=script, env=env, capture_output=True, text=True, check=False).returncode != 0
    assert not marker.exists()


# --- prechecks ---


def refusals(facts: dict[str, Any] | None = None, **settings: Any) -> str:
    found = site(**settings)
    found.give_facts({**FACTS, **(facts or {})})
    verdicts = list(prechecks(found, HOST, "iam"))
    assert None not in verdicts, "a check could not be worked out"
    problems = [problem for verdict in verdicts for problem in verdict or []]
    assert all(problem["host"] == HOST and problem["next_step"] for problem in problems)
    return "\n".join(str(problem) for problem in problems)


def test_the_example_site_passes() -> None:
    assert refusals() == ""


def test_keycloak_is_not_held_to_what_indigo_needs() -> None:
    assert refusals(iam_backend="keycloak", iam_indigo_profiles=["h2-test"], iam_indigo_signing_keys=[]) == ""
    assert "found members of nobody" not in refusals(iam_users=[{"name": "u", "groups": ["nobody"]}])


WEAK = json.dumps({"keys": [{"kty": "RSA", "kid": "rsa1", "n": "_" * 171, "e": "AQAB", "d": "AA"}]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"iam_indigo_repository": ""}, "out of reach"),
        ({"iam_indigo_digest": "sha256:abc"}, "needed sha256:HASH of v1.12.0"),
        ({"iam_indigo_digest": ""}, "needed sha256:HASH of v1.12.0"),
        ({"iam_indigo_digest": f"{IMAGE['iam_indigo_digest']}0"}, "needed sha256:HASH of v1.12.0"),
        ({"iam_issuer": "https://iam.ifca.example"}, "cannot be this issuer"),
        ({"iam_issuer": "http://iam.ifca.example/"}, "cannot be this issuer"),
        ({"iam_indigo_profiles": ["registration"]}, "not for production"),
        ({"iam_indigo_profiles": ["prod", "mysql-test"]}, "not for production"),
        ({"iam_indigo_environment": {"IAM_DB_HOST": "db"}}, "not the site's to change"),
        ({"iam_indigo_environment": {"IAM_MAIL_PASSWORD": "changeit"}}, "everybody knows"),
        ({"iam_indigo_profiles": ["prod", "saml"]}, "sample key"),
        ({"iam_indigo_key_bits": 1024}, "signed badly"),
        ({"iam_indigo_signing_keys": []}, "signed badly"),
        ({"iam_indigo_own_key_store": WEAK}, "key rsa1 with 1024 bits"),
        ({"iam_indigo_own_key_store": "none"}, "no JWK Set"),
        ({"iam_seed": "short"}, "too short"),
    ],
)
def test_a_wrong_inventory_is_refused(settings: dict[str, Any], said: str) -> None:
    assert said in refusals(**settings)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"distribution": "RedHat", "distribution_major_version": "9"}, "no IAM for this distribution"),
        ({"memtotal_mb": 2000}, "too little memory"),
        ({"deephdc": {"listening": [{"port": 443, "program": "apache2"}]}}, "port 443 is in use"),
        ({"deephdc": {"listening": [{"port": 8080, "program": "tomcat"}]}}, "loopback address is in use"),
        ({"deephdc": {"listening": [{"port": 443, "program": "nginx"}, {"port": 3306, "program": "mariadbd"}]}}, ""),
    ],
)
def test_an_unsuitable_host_is_refused(facts: dict[str, Any], said: str) -> None:
    found = refusals(facts)
    assert said in found
    assert bool(said) == bool(found)


def test_registry_answers_for_the_image_of_a_site_without_upstream(tmp_path: Path) -> None:
    declared = yaml.safe_load((repo_root() / "artifacts" / "indigo-iam.yml").read_text(encoding="utf-8"))
    assert declared["sources"]["registry"]["images"]["iam-login-service"]["tag"] == "v{indigo_iam}"
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"iam": {"hosts": {HOST: {}}}}))
    found = SiteVariables([sites.inventories() / "common", tmp_path], extra=NAMES)
    found.give_facts(FACTS)
    given = {"iam_backend": "indigo_iam", "iam_indigo_digest": IMAGE["iam_indigo_digest"]}
    for sources, image in ((["upstream", "package"], "docker.io/indigoiam/iam-login-service"), (["package"], "")):
        variables = found.variables(HOST, "iam", {**given, "artifact_sources": sources})
        rendered_image = found.render(variables["iam_indigo_image"], variables)
        assert rendered_image == f"{image}@{IMAGE['iam_indigo_digest']}"
