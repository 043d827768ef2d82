"""Secrets, modes, packages and their licences: what was planted is found, and nothing passes without a look."""

from __future__ import annotations

import gzip
import http.server
import json
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sqa import registry, sbom
from sqa.cache import Cache
from sqa.checks.world_writable import lets_anybody_write
from sqa.model import Verdict
from sqa.runner import Runner
from sqa.settings import Settings
from sqa.spdx import MIT
from sqa.tree import Tree
from tests.sqa.real_checks import places, run, write

TOKEN = "ghp" + "_R7kQ2mZx9LwT4vNb8YcJ1sHd6FgUe3PaKi5o"
PINNED = "jinja2==2.9\nsix==1.16.0\n"


@pytest.fixture
def osv() -> Iterator[str]:
    """A service that speaks OSV's protocol and knows one flaw, of Jinja2 below 2.11."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            flaw = {
                "id": "PYSEC-2021-66", "aliases": ["CVE-2020-28493"], "summary": "slow", "details": "slow",
                "published": "2021-02-01T00:00:00Z", "modified": "2021-02-01T00:00:00Z",
                "affected": [{
                    "package": {"name": "jinja2", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}]}],
                }],
            }  # fmt: skip
            old = asked["package"]["name"] == "jinja2" and asked["version"].startswith("2.")
            body = json.dumps({"vulns": [flaw]} if old and self.path == "/knows" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_secrets_are_found_wherever_they_are_and_never_repeated(tmp_path: Path) -> None:
    line = f'token = "{TOKEN}"\n'
    root = write(tmp_path / "tree", {"one.py": "x = 1\n" + line, ".hidden/two": line, "clean.py": "x = 1\n"})
    (root / "packed.gz").write_bytes(gzip.compress(line.encode(), mtime=0))
    subprocess.run(["git", "init", "--quiet", "."], cwd=root, check=True)
    subprocess.run(["git", "add", "clean.py"], cwd=root, check=True)
    found = run(root, "secrets")
    assert {(path, line) for path, line, _ in places(found)} == {("one.py", 2), (".hidden/two", 1), ("packed.gz", 1)}
    assert (found.verdict, found.examined) == (Verdict.FAIL, 4)
    assert TOKEN[6:] not in json.dumps(found.as_dict())


def test_secrets_one_file_at_a_time(tmp_path: Path) -> None:
    files = {"one.py": f'token = "{TOKEN}"\n', "two.py": f'other = "{TOKEN}"\n', "clean.py": "x = 1\n"}
    whole = run(write(tmp_path / "all" / "tree", files), "secrets")
    root = write(tmp_path / "single" / "tree", files)
    for name in files:
        run(root, "secrets", frozenset({name}))
    pieced = run(root, "secrets")
    assert pieced.cached
    assert (pieced.findings, pieced.examined, pieced.work) == (whole.findings, 3, whole.work)


@pytest.mark.parametrize(
    ("mode", "open_to_all"),
    [
        ("0666", True), ("777", True), ("0o772", True), ("0644", False), ("0o755", False), ("1777", False),
        ("o+w", True), ("a=rw", True), ("ugo+rwX", True), ("u=rw,g=r,o=rw", True),
        ("u=rw,go=r", False), ("o-w", False), ("g+w", False), ("+x", False), ("000", False),
    ],
)  # fmt: skip
def test_which_modes_let_anybody_write(mode: str, open_to_all: bool) -> None:
    assert lets_anybody_write(mode) is open_to_all


def test_modes_on_disk_and_in_code_are_found(tmp_path: Path) -> None:
    wide = "06" + "66"
    files = {
        "tasks/main.yml": f"- name: x\n  copy:\n    mode: '{wide}'\n- x: {{dest_mode: 'o=w'}}\n# mode: {wide}\n",
        "build.sh": f"#!/bin/sh\nchmod -R {wide} /x\ninstall -m 0{wide[1:]} a b\nchmod 644 /x\n",
        "tool": "#!/bin/bash\nchmod a+w /x\n",
        "Dockerfile": f"FROM debian:12\nCOPY --chmod={wide} a b\n",
        "code.py": f"path.chmod(0o{wide[1:]})\nmode = path.stat().st_mode & 0o777\n",
        "open.txt": "x\n",
        "wide/file.txt": "x\n",
    }
    root = write(tmp_path / "tree", files)
    (root / "open.txt").chmod(0o644 | stat.S_IWOTH)
    (root / "wide").chmod(0o755 | stat.S_IWOTH)
    found = run(root, "world-writable")
    assert places(found) == {
        ("tasks/main.yml", 3, "mode-in-code"), ("tasks/main.yml", 4, "mode-in-code"),
        ("build.sh", 2, "mode-in-code"), ("build.sh", 3, "mode-in-code"), ("tool", 2, "mode-in-code"),
        ("Dockerfile", 2, "mode-in-code"), ("code.py", 1, "mode-in-code"),
        ("open.txt", 0, "mode-on-disk"), ("wide/file.txt", 0, "mode-of-folder"),
    }  # fmt: skip


def test_a_known_vulnerability_is_found_in_its_line(tmp_path: Path, osv: str) -> None:
    files = {"requirements.txt": "# pins\n" + PINNED, "requirements/dev.txt": "six==1.16.0 \\\n    --hash=sha256:00\n"}
    root = write(tmp_path / "tree", files)
    found = run(root, "pip-audit", osv_url=f"{osv}/knows")
    assert places(found) == {("requirements.txt", 2, "PYSEC-2021-66")}, found.reasons
    assert "CVE-2020-28493" in found.findings[0].message
    assert found.work == {"packages looked up": 2}
    write(root, {"requirements.txt": "jinja2==3.1.6\n"})
    found = run(root, "pip-audit", osv_url=f"{osv}/knows")
    assert (found.verdict, found.work) == (Verdict.PASS, {"packages looked up": 2})


@pytest.mark.parametrize(("path", "why"), [("/ignorant", "no vulnerability of jinja2==2.10"), (None, "gave up")])
def test_a_service_that_knows_nothing_or_is_away_is_no_pass(
    tmp_path: Path, osv: str, path: str | None, why: str
) -> None:
    root = write(tmp_path / "tree", {"requirements.txt": PINNED})
    found = run(root, "pip-audit", osv_url=f"{osv}{path}" if path else "http://127.0.0.1:9/")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]


@pytest.mark.parametrize("name", ["sbom", "pip-audit"])
def test_a_package_in_any_version_is_found(tmp_path: Path, name: str, osv: str) -> None:
    root = write(tmp_path / "tree", {"requirements.txt": "six==1.16.0\n\nrequests>=2\n"})
    settings: dict[str, Any] = {"osv_url": f"{osv}/knows"} if name == "pip-audit" else {}
    found = run(root, name, **settings)
    assert places(found) == {("requirements.txt", 3, "not-pinned")}, found.reasons


def test_a_line_that_is_no_requirement_is_no_pass(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {"requirements.txt": "six == \n"}), "sbom")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons[0].startswith("requirements.txt:1: no requirement")


def test_the_bill_of_a_release_is_the_same_each_time(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", {"requirements.txt": PINNED})
    texts = []
    for name in ("one.json", "two.json"):
        assert sbom.write(root / "requirements.txt", root / name) == 2
        texts.append((root / name).read_bytes())
    assert texts[0] == texts[1]
    assert sbom.components(texts[0].decode()) == {("jinja2", "2.9"), ("six", "1.16.0")}
    assert str(tmp_path) not in texts[0].decode()


@pytest.mark.parametrize(
    ("name", "reader", "blind", "why"),
    [
        ("sbom", "sqa.sbom.components", lambda text: KnowsAll(), "does not find not-listed"),
        ("licences", "sqa.checks.licences._reuse", lambda look: ([], set(look.files)), "does not find QC.Lic01 (REUSE"),
        ("licences", "sqa.spdx.recognise", lambda text: "Apache-2.0", "does not find QC.Lic01 (It says Apache-2.0"),
    ],
)
def test_a_canary_tells_that_a_reader_is_blind(  # pylint: disable=too-many-positional-arguments # each is one part
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reader: str, blind: Any, why: str
) -> None:
    check = registry.load()[name]
    root = write(tmp_path / "tree", check.check.canary.good)
    monkeypatch.setattr(reader, blind)
    found = Runner(Tree(root), Settings(), jobs=1, cache=Cache(tmp_path / "results.db")).run([check])[0]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]


class KnowsAll:
    """A bill that lists whatever is asked for."""

    def __contains__(self, pin: object) -> bool:
        return True


PROJECT = '[project]\nname = "x"\nlicense = "{}"\n'


@pytest.mark.parametrize(
    ("files", "failed"),
    [
        ({"LICENSE": MIT, "pyproject.toml": PROJECT.format("MIT")}, set()),
        ({"LICENSE": MIT, "pyproject.toml": PROJECT.format("Apache-2.0")}, {("pyproject.toml", "QC.Lic01")}),
        ({"LICENSE": MIT[:40], "pyproject.toml": PROJECT.format("MIT")}, {("LICENSE", "QC.Lic01")}),
        ({"pyproject.toml": PROJECT.format("MIT")}, {("", "QC.Lic01")}),
        (
            {"LICENSE": "Server Side Public License", "pyproject.toml": PROJECT.format("SSPL-1.0")},
            {("LICENSE", rule) for rule in ("QC.Lic01", "QC.Lic02", "QC.Lic02.1")},
        ),
        ({"LICENSE": MIT, "galaxy.yml": "license: [MIT]\n", "docs/LICENSE": MIT}, {("docs/LICENSE", "SvcQC.Doc06")}),
    ],
)
def test_a_licence_is_judged_criterion_by_criterion(
    tmp_path: Path, files: dict[str, str], failed: set[tuple[str, str]]
) -> None:
    found = run(write(tmp_path / "tree", files), "licences")
    assert {(path, rule) for path, _, rule in places(found)} == failed, found.reasons
    assert {"QC.Lic01", "QC.Lic02", "QC.Lic02.1"} <= found.rules
    assert ("SvcQC.Doc06" in found.rules) == ("docs/LICENSE" in files)


def test_every_file_is_looked_at_where_the_tree_follows_reuse(tmp_path: Path) -> None:
    marks = "# SPDX-" + "FileCopyrightText: 2026 us\n# SPDX-" + "License-Identifier: MIT\n"
    files = {
        "LICENSE": MIT,
        "LICENSES/MIT.txt": MIT,
        "pyproject.toml": marks + PROJECT.format("MIT"),
        "a.py": marks,
        "b.py": "x = 1\n",
    }
    found = run(write(tmp_path / "tree", files), "licences")
    assert {path for path, _, _ in places(found)} == {"b.py"}, found.reasons
    assert "b.py" in {one.path for one in found.findings}


def test_packages_under_a_denied_licence_are_found(tmp_path: Path) -> None:
    files = {"LICENSE": MIT, "pyproject.toml": PROJECT.format("MIT")}
    root = write(tmp_path / "tree", files)
    subprocess.run(["python3", "-m", "venv", "--without-pip", str(root / "env")], check=True)
    (home,) = (root / "env").glob("lib/python3*/site-packages")
    write(
        home,
        {"bad-1.0.dist-info/METADATA": "Name: bad\nVersion: 1.0\nLicense-Expression: BUSL-1.1\n"},
    )
    found = run(root, "licences", python="env/bin/python")
    assert [one.message for one in found.findings] == ["bad 1.0 is under BUSL-1.1, which is not allowed"], found.reasons
    assert run(root, "licences", python="env/bin/python", known={"bad": "MIT"}).verdict is Verdict.PASS
    assert run(root, "licences", python="nowhere/python").verdict is Verdict.INCONCLUSIVE


def test_checkov_finds_a_defect_of_each_kind_and_reads_every_file(tmp_path: Path) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: y}\nspec:\n  containers: [{name: x, image: x}]\n"
    uri = "- name: x\n  ansible.builtin.uri:\n    url: '{}'\n    validate_certs: {}\n"
    files = {
        "tasks/main.yml": uri.format("https://x.example", "false"),
        "tasks/filled.yml": uri.format("{{ url }}", "true"),
        "deploy/pod.yaml": pod,
        "Dockerfile": "FROM debian:12\nUSER x\n",
    }
    found = run(write(tmp_path / "tree", files), "checkov", skip=["CKV_K8S_20"])
    rules = {(path, rule) for path, _, rule in places(found)}
    assert rules >= {
        ("tasks/main.yml", "CKV_ANSIBLE_1"),
        ("Dockerfile", "CKV_DOCKER_2"),
        ("deploy/pod.yaml", "CKV_K8S_40"),
    }, found.reasons
    assert not [rule for path, rule in rules if path == "tasks/filled.yml" or rule == "CKV_K8S_20"]
    assert found.work == {"Dockerfiles": 1, "manifests": 1, "Ansible files": 2}
    write(tmp_path / "tree", {"deploy/pod.yaml": pod + "a: [\n"})
    found = run(tmp_path / "tree", "checkov")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons[0].startswith("deploy/pod.yaml: no YAML")
