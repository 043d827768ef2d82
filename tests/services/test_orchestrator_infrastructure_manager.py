"""What a site behind an Infrastructure Manager makes of answers that the real one seldom gives, over real TLS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deep_orchestrator import infrastructure_manager
from deep_orchestrator.infrastructure_manager import (
    AwayError,
    Credentials,
    InfrastructureManager,
    Ingress,
    in_words,
    only_gone,
)
from deep_orchestrator.sites import Look, SiteError, State
from deep_tosca import template as tosca
from testbed.paths import repo_root
from tests.unit.login_issuer import Authority, Issuer, serving

HOST = "localhost"
OURS, OTHER = f"{'a' * 8}-b", "c" * 36
MADE = "12345678-eb53-11f1-9b1d-02fc00000001"
TEMPLATE = (repo_root() / "services" / "tosca" / "deep_tosca" / "templates" / "kubernetes.yaml").read_text("utf-8")
TOKEN = "a.b.c"  # nosec B105 # made up
KUBERNETES = "https://kubernetes.test"
DESTROYING = "Error Destroying Inf: Error destroying the infrastructure: \n"
Answer = tuple[int, dict[str, Any]]


@dataclass
class Told(Issuer):
    """A server that answers what it was told, by the last part of the path: the last answer again and again."""

    told: dict[str, list[Answer]] = field(default_factory=dict)
    authorizations: set[str] = field(default_factory=set)

    def answer(self, what: str, fields: dict[str, str], bearer: str) -> Answer:
        """Status and body for one request."""
        self.authorizations.add(bearer)
        answers = self.told.get(what, [(404, {"message": f"no {what}"})])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass
class Meeting:
    """A server, and the site in front of it."""

    server: Told
    site: InfrastructureManager
    authority: Path


@pytest.fixture
def meeting(tmp_path: Path) -> Iterator[Meeting]:
    authority = Authority()
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.pem)
    with ExitStack() as stack:
        server = stack.enter_context(serving(Told(HOST), authority.context(HOST, tmp_path)))
        assert isinstance(server, Told)
        yield Meeting(server, site(server, file), file)


def site(server: Told, authority: Path, token: str = TOKEN, **more: Ingress) -> InfrastructureManager:
    url = f"https://{HOST}:{server.port}"
    return InfrastructureManager("local", url, KUBERNETES, authority, lambda _: Credentials(token, "deep"), **more)


def state(name: str) -> Answer:
    return 200, {"state": {"state": name, "vm_states": {}}}


@pytest.mark.parametrize(
    ("name", "said", "reason"),
    [
        ("failed", "first\nsecond\nfirst", "its container has failed: first; second"),
        ("unconfigured", "Contextualization disabled by the RADL/TOSCA template.\n", "it could not be configured"),
        (
            "failed",
            "Contextualization disabled.\n\nVM 0:\nContainer does not run: Error: it ended with 1\n\n*****\n",
            "its container has failed: Container does not run: Error: it ended with 1",
        ),
        ("off", "", "its container has ended"),
        ("stopped", "", "its container has been stopped"),
        ("deleting", "", "it is being removed"),
        ("new", "", "it is in a state that is not known: new"),
    ],
)
def test_a_state_that_is_the_end_says_why(meeting: Meeting, name: str, said: str, reason: str) -> None:
    meeting.server.told = {"state": [state(name)], "contmsg": [(200, {"contmsg": said})]}
    assert meeting.site.look(OURS, MADE) == Look(State.FAILED, reason)


@pytest.mark.parametrize("name", ["pending", "configured"])
def test_a_part_that_kubernetes_did_not_take_is_a_failure(meeting: Meeting, name: str) -> None:
    said = 'Error creating service for pod a: {"message":"exceeded quota"}\nContextualization disabled\n'
    meeting.server.told = {"state": [state(name)], "contmsg": [(200, {"contmsg": said})]}
    reason = "a part of it was not made: Kubernetes refuses: exceeded quota"
    assert meeting.site.look(OURS, MADE) == Look(State.FAILED, reason)


def test_what_is_out_of_sight_for_long_has_failed(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting.server.told = {"state": [state("unknown")]}
    assert meeting.site.look(OURS, MADE) == meeting.site.look(OURS, MADE) == Look(State.PENDING)
    monkeypatch.setattr(infrastructure_manager, "UNSEEN", 0)
    assert "has not seen its pod for 0 s. Next: look for the quota" in meeting.site.look(OURS, MADE).reason
    monkeypatch.setattr(infrastructure_manager, "UNSEEN", 2)
    nothing = [(200, {"contmsg": ""})]
    meeting.server.told = {"state": [state("unknown"), state("pending"), state("unknown")], "contmsg": nothing}
    for seconds in (2, 0, 0):
        assert meeting.site.look(OURS, MADE) == Look(State.PENDING)
        time.sleep(seconds)


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("ErrImagePull: failed to resolve reference a/b:1: a/b:1: not found", State.STUCK),
        ("ImagePullBackOff: Back-off pulling image a/b:1: ErrImagePull: 403 Forbidden", State.STUCK),
        ("ImagePullBackOff: Back-off pulling image a/b:1: ErrImagePull: dial tcp: i/o timeout", State.PENDING),
        ("ErrImagePull: unexpected status from HEAD request: 503 Service Unavailable", State.PENDING),
        ("InvalidImageName: Failed to apply default image tag", State.STUCK),
        ("CreateContainerConfigError: secret s3 not found", State.STUCK),
        ("CrashLoopBackOff: back-off 20s restarting failed container", State.STUCK),
        ("Error: it ended with 1", State.PENDING),
        ("Unschedulable: 0/1 nodes are available: nvidia.com/gpu not found", State.PENDING),
    ],
)
@pytest.mark.parametrize("name", ["pending", "running", "configured"])
def test_a_container_that_does_not_run_is_not_ready_and_says_why(
    meeting: Meeting, name: str, reason: str, found: State
) -> None:
    said = f"Contextualization disabled.\n\nVM 0:\nContainer does not run: {reason}\nContextualization disabled\n***\n"
    meeting.server.told = {"state": [state(name)], "contmsg": [(200, {"contmsg": said})], "outputs": [(500, {})]}
    assert meeting.site.look(OURS, MADE) == Look(found, reason)


@pytest.mark.parametrize(
    ("outputs", "look"),
    [
        ({"endpoint": "None:31987"}, Look(State.PENDING)),
        ({"endpoint": None}, Look(State.PENDING)),
        (
            {"endpoint": "192.0.2.1:0"},
            Look(State.FAILED, "its service was not made, without which it has no endpoint: no room for it"),
        ),
        ({"endpoint": "192.0.2.1:80"}, Look(State.READY, outputs={"endpoint": "http://192.0.2.1:80"})),
        ({"endpoint": "https://a.test/"}, Look(State.READY, outputs={"endpoint": "https://a.test/"})),
        ({"other": "words", "n": 3}, Look(State.READY, outputs={"other": "words", "n": 3})),
    ],
)
def test_outputs_are_addresses_that_are_known(meeting: Meeting, outputs: dict[str, Any], look: Look) -> None:
    meeting.server.told = {
        "state": [state("configured")], "outputs": [(200, {"outputs": outputs})], "tosca": [(200, {"tosca": TEMPLATE})],
        "contmsg": [(200, {"contmsg": "no room for it"})],
    }  # fmt: skip
    assert meeting.site.look(OURS, MADE) == look


@pytest.mark.parametrize("status", [429, 500, 502, 504])
def test_what_may_be_taken_later_is_tried_again(meeting: Meeting, status: int) -> None:
    broken = [(status, {"message": "later"})]
    meeting.server.told = {"state": broken, "infrastructures": broken, MADE: broken}
    actions: list[Callable[[], object]] = [
        lambda: meeting.site.look(OURS, MADE), lambda: meeting.site.find(OURS), lambda: meeting.site.remove(OURS, MADE),
        lambda: meeting.site.create(OURS, TEMPLATE, {"image": "a/b:1"}),
    ]  # fmt: skip
    for act in actions:
        with pytest.raises(httpx.HTTPStatusError):
            act()


def test_another_server_is_not_taken_for_one(meeting: Meeting) -> None:
    meeting.server.told = {"infrastructures": [(200, {"uri-list": [{"uri": "https://elsewhere.test/login"}]})]}
    with pytest.raises(AwayError, match=r"no Infrastructure Manager answers \(found 'login'"):
        meeting.site.find(OURS)


def test_a_server_with_another_certificate_gets_no_token(meeting: Meeting, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        site(meeting.server, other).find(OURS)
    assert not meeting.server.authorizations


@pytest.mark.parametrize("token", ["a; host = b", "a\\nb", "a\nb", "file(/etc/passwd)", "a=b", ""])
def test_a_token_never_becomes_more_than_one_field(meeting: Meeting, token: str) -> None:
    with pytest.raises(SiteError, match="cannot read the token") as refused:
        site(meeting.server, meeting.authority, token).find(OURS)
    assert not token or token not in str(refused.value)
    assert not meeting.server.authorizations


def test_credentials_are_in_the_lines_that_are_read(meeting: Meeting) -> None:
    meeting.server.told = {"infrastructures": [(200, {"uri-list": []})]}
    assert site(meeting.server, meeting.authority, ingress=Ingress("{namespace}.deep.test")).find(OURS) == []
    (line,) = meeting.server.authorizations
    there = f"host = {KUBERNETES}; token = a.b.c; namespace = deep; apps_dns = deep.deep.test"
    assert line.split("\\n") == [
        "type = InfrastructureManager; token = a.b.c",
        f"id = site; type = Kubernetes; {there}",
    ]


HERE = f"https://{OURS}.deep.modules.test"
PUBLISHED = Ingress("{namespace}.modules.test", 8445)


def sent(meeting: Meeting, monkeypatch: pytest.MonkeyPatch, template: str, ingress: Ingress, **more: str) -> Any:
    """The endpoint in what is sent for a new deployment."""
    texts: list[str] = []
    behind = site(meeting.server, meeting.authority, ingress=ingress)
    answer = httpx.Response(200, json={"uri": f"https://{HOST}/infrastructures/{MADE}"})

    def take(*_: object, content: str = "", **__: object) -> httpx.Response:
        texts.append(content)
        return answer

    monkeypatch.setattr(behind, "_ask", take)
    behind.create(OURS, template, {"image": "a/b:1", **more})
    host = yaml.safe_load(texts[0])["topology_template"]["node_templates"]["runtime"]["capabilities"]["host"]
    return host["properties"]["publish_ports"][0].get("endpoint")


def test_a_deployment_is_published_under_its_own_name(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kubernetes", "kubernetes-gpu"):
        template = TEMPLATE.replace("kubernetes.yaml", f"{name}.yaml")
        assert sent(meeting, monkeypatch, template, PUBLISHED) == HERE


def test_what_somebody_says_of_the_address_is_kept(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "https://own.deep.modules.test"
    assert sent(meeting, monkeypatch, TEMPLATE, PUBLISHED, endpoint=given) == given
    assert sent(meeting, monkeypatch, TEMPLATE, PUBLISHED, endpoint="") == ""
    assert sent(meeting, monkeypatch, TEMPLATE, Ingress()) == ""
    # An input that only has that name.
    other = TEMPLATE.replace("endpoint: { get_input: endpoint }", "endpoint: ''")
    assert sent(meeting, monkeypatch, other, PUBLISHED) == ""


@pytest.mark.parametrize(
    ("said", "ingress", "told"),
    [
        (f"{HERE}/", PUBLISHED, f"https://{OURS}.deep.modules.test:8445/"),
        (f"{HERE}/", Ingress("{namespace}.modules.test"), f"{HERE}/"),
        ("https://a.elsewhere.test/", PUBLISHED, "https://a.elsewhere.test/"),
        (f"{HERE}.elsewhere.test/", PUBLISHED, f"{HERE}.elsewhere.test/"),
    ],
)
def test_the_output_says_where_the_ingress_listens(meeting: Meeting, said: str, ingress: Ingress, told: str) -> None:
    meeting.server.told = {
        "state": [state("configured")], "outputs": [(200, {"outputs": {"endpoint": said}})],
        "contmsg": [(200, {"contmsg": ""})],
    }  # fmt: skip
    assert site(meeting.server, meeting.authority, ingress=ingress).look(OURS, MADE).outputs == {"endpoint": told}


@pytest.mark.parametrize("there", [{"endpoint": HERE}, {"endpoint": "https://before.deep.old.test"}, {}])
def test_what_is_changed_stays_where_it_is_published(meeting: Meeting, there: dict[str, str]) -> None:
    behind = site(meeting.server, meeting.authority, ingress=PUBLISHED)
    text = tosca.render(tosca.read(TEMPLATE), {"image": "a/b:1", **there}, f"deep-{OURS}", f"deep-{OURS}@local")
    radl = [{"class": "system", "id": "module"}]
    meeting.server.told = {
        "tosca": [(200, {"tosca": text})], "0": [(200, {"radl": radl})],
        MADE: [(200, {"uri-list": [{"uri": f"https://{HOST}/infrastructures/{MADE}/vms/0"}]})],
    }  # fmt: skip
    # It is sent, to a server that takes no changes.
    with pytest.raises(httpx.HTTPStatusError, match="501"):
        behind.update(OURS, MADE, TEMPLATE, {"image": "a/b:2", "num_cpus": 2.0})
    with pytest.raises(SiteError, match="found a change of runtime: publish_ports"):
        behind.update(OURS, MADE, TEMPLATE, {"image": "a/b:2", "endpoint": "https://other.deep.modules.test"})


def test_what_has_no_name_yet_is_waited_for_and_the_others_are_asked_once(meeting: Meeting) -> None:
    named = "description desc (\nname = 'deep-{}@local'\n)\nsystem module ("
    meeting.server.told = {
        "infrastructures": [(200, {"uri-list": [{"uri": f"https://{HOST}/infrastructures/{MADE}"}]})],
        "radl": [(200, {"radl": ""}), (200, {"radl": named.format(OURS)}), (500, {})],
    }
    assert meeting.site.find(OURS) == [MADE]
    assert meeting.site.find(OURS) == [MADE]
    assert meeting.site.find(OTHER) == []


def test_what_another_site_has_behind_the_same_manager_is_not_this_ones(meeting: Meeting) -> None:
    meeting.server.told = {
        "infrastructures": [(200, {"uri-list": [{"uri": f"https://{HOST}/infrastructures/{MADE}"}]})],
        "radl": [(200, {"radl": f"description desc (\nname = 'deep-{OURS}@another'\n)\nsystem module ("})],
    }
    assert meeting.site.find(OURS) == []


def test_what_never_gets_a_name_is_nobodys(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infrastructure_manager, "UNNAMED", 0)
    meeting.server.told = {
        "infrastructures": [(200, {"uri-list": [{"uri": f"https://{HOST}/infrastructures/{MADE}"}]})],
        "radl": [(200, {"radl": ""})],
    }
    assert meeting.site.find(OURS) == []


def test_a_template_that_is_wrong_is_not_sent(meeting: Meeting) -> None:
    with pytest.raises(SiteError, match="input image is missing"):
        meeting.site.create(OURS, TEMPLATE, {})
    assert not meeting.server.authorizations


def test_of_a_long_answer_the_words_are_told_once() -> None:
    refused = '{"kind":"Status","message":"pods \\"a\\" is forbidden","code":403}'
    assert in_words(f"Attempt 1: {refused}\n\nAttempt 2: {refused}\n") == 'Kubernetes refuses: pods "a" is forbidden'
    assert in_words("first\n\n second   word\nfirst") == "first; second word"
    assert len(in_words("x" * 2000)) == 500


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        ("Error Destroying Inf: Error destroying the infrastructure: \nmodule-1module-1\n", True),
        (
            "Error Destroying Inf: Error destroying the infrastructure: \nError deleting the Service: 403module-1\n",
            False,
        ),
        (
            "Error Destroying Inf: Error destroying the infrastructure: \nError connecting with Kubernetes API server",
            False,
        ),
        ("Error Destroying Inf: Invalid infrastructure ID", False),
        ("", False),
    ],
)
def test_only_what_is_gone_is_given_up(said: str, gone: bool) -> None:
    assert only_gone(said) is gone
