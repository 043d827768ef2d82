"""A site behind the real Infrastructure Manager, before a real Kubernetes API whose pods run when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.orm import Session

from deep_orchestrator import infrastructure_manager, store
from deep_orchestrator.asks import ask
from deep_orchestrator.infrastructure_manager import AwayError, Credentials, InfrastructureManager
from deep_orchestrator.sites import Look, SiteError, State
from deep_orchestrator.steps import Limits, Progress, Steps
from deep_orchestrator.store import Deployment, Status
from testbed.paths import repo_root
from tests.artifacts.im_kubernetes import ALL, NAMESPACE, Place, context, path, running, until

pytestmark = pytest.mark.live

TEMPLATES = repo_root() / "services" / "tosca" / "deep_tosca" / "templates"
DEPLOYMENTS, PODS, SERVICES = "apps/v1/deployments", "v1/pods", "v1/services"
KINDS = (DEPLOYMENTS, PODS, SERVICES, "v1/persistentvolumeclaims", "networking.k8s.io/v1/ingresses")
IMAGE = "registry.deep.test:5000/deep/digits:1"
STORAGE = {"storage_endpoint": "https://s3.deep.test", "storage_bucket": "data", "storage_secret_name": "s3"}  # nosec B105 # a name
BY_DIGEST = f"registry.deep.test:5000/deephdc/image-classifier@sha256:{'a' * 64}"
# As containerd says it, what matters last.
REFUSED = f'failed to pull and unpack image "{BY_DIGEST}": failed to resolve reference "{BY_DIGEST}": '
REFUSED += f"pulling {BY_DIGEST}: 403 Forbidden"
# eve may make no container; carl may make no ingress.
PEOPLE = {"ada": ALL, "carl": [kind for kind in ALL if kind != "ingresses"], "eve": ["services"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("place"), PEOPLE) as there:
        yield there


@pytest.fixture
def site_of(place: Place) -> Callable[..., InfrastructureManager]:
    """The site as it is for a person."""

    def made(person: str, name: str = "local") -> InfrastructureManager:
        given = Credentials(place.tokens[person], NAMESPACE)
        return InfrastructureManager(name, place.url, place.kubernetes, place.authority, lambda _: given)

    return made


@pytest.fixture
def site(place: Place, site_of: Callable[..., InfrastructureManager]) -> Iterator[InfrastructureManager]:
    """The site for somebody who may deploy there; nothing is left there afterwards."""
    yield site_of("ada")
    place.issuer.down = False
    until(lambda: not left(place), "something is left", 20)


@pytest.fixture
def deployment() -> str:
    return str(uuid4())


def text(name: str = "kubernetes") -> str:
    return (TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")


def left(place: Place) -> dict[str, list[str]]:
    """Names of what is in the namespace, by kind."""
    there = {kind: [one["metadata"]["name"] for one in place.get(kind)] for kind in KINDS}
    return {kind: names for kind, names in there.items() if names}


def run(place: Place, site: InfrastructureManager, deployment: str, infrastructure: str) -> Look:
    """Say that the pods run, and what the site then says of the infrastructure."""
    until(lambda: bool(place.get(PODS)), "no pod was made")
    place.set_phase("Running")
    until(lambda: site.look(deployment, infrastructure).state != State.PENDING, "it does not get ready")
    return site.look(deployment, infrastructure)


def test_a_container_is_made_found_looked_at_and_removed(
    place: Place, site: InfrastructureManager, site_of: Callable[..., InfrastructureManager], deployment: str
) -> None:
    made = site.create(deployment, text("kubernetes-storage"), {"image": IMAGE, "num_cpus": 1.5, **STORAGE})
    assert site.find(deployment) == [made]
    assert site.find(str(uuid4())) == []
    # What is removed from a site after a failure there must not be what runs at the next one.
    assert site_of("ada", "another-site-of-the-same-manager").find(deployment) == []
    assert site.look(deployment, made) == Look(State.PENDING)
    (there,) = place.get(DEPLOYMENTS)
    assert there["metadata"]["labels"]["im.inf"] == made
    (container,) = there["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["resources"]["limits"] == {"cpu": "1500m", "memory": str(2**30)}
    assert {"name": "DEEP_DEPLOYMENT", "value": f"deep-{deployment}"} in container["env"]
    assert container["volumeMounts"][0]["mountPath"] == "/scratch"
    (service,) = place.get(SERVICES)
    port = service["spec"]["ports"][0]["nodePort"]
    ready = Look(State.READY, outputs={"endpoint": f"http://192.0.2.10:{port}"})
    assert run(place, site, deployment, made) == ready
    site.remove(deployment, made)
    assert site.find(deployment) == []
    assert site.look(deployment, made) == Look(State.FAILED, "it is gone")
    site.remove(deployment, made)


@pytest.mark.parametrize(
    ("phase", "reason", "message"),
    [
        ("Pending", "ImagePullBackOff", f'Back-off pulling image "{IMAGE}": ErrImagePull: {IMAGE}: not found'),
        (
            "Pending",
            "ErrImagePull",
            REFUSED,
        ),
        ("Pending", "CreateContainerConfigError", 'secret "s3" not found'),
        ("Running", "CrashLoopBackOff", "back-off 20s restarting failed container"),
    ],
)
def test_a_container_that_will_not_run_is_stuck_until_it_runs(
    place: Place, site: InfrastructureManager, deployment: str, phase: str, reason: str, message: str
) -> None:
    made = site.create(deployment, text(), {"image": IMAGE})
    until(lambda: bool(place.get(PODS)), "no pod was made")
    container = {"name": "module", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0}
    place.set_phase(phase, containerStatuses=[{**container, "state": {"waiting": {"reason": "ContainerCreating"}}}])
    assert site.look(deployment, made).reason == ""
    waiting = {"reason": reason, "message": message}
    place.set_phase(phase, containerStatuses=[{**container, "state": {"waiting": waiting}}])
    # It asks Kubernetes once a second at most.
    until(lambda: site.look(deployment, made).state == State.STUCK, "it is not said to be stuck", 5)
    said = site.look(deployment, made).reason
    assert said.startswith(f"{reason}: {message[:100]}")
    assert said.endswith(message[-100:])
    place.set_phase("Running", containerStatuses=[{**container, "state": {"running": {}}}])
    until(lambda: site.look(deployment, made).state == State.READY, "it does not get ready")
    site.remove(deployment, made)


def test_what_finds_no_place_says_so(place: Place, site: InfrastructureManager, deployment: str) -> None:
    made = site.create(deployment, text("kubernetes-gpu"), {"image": IMAGE, "num_gpus": 8})
    until(lambda: bool(place.get(PODS)), "no pod was made")
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    place.set_phase("Pending", conditions=[full])
    waits = Look(State.PENDING, "Unschedulable: 0/1 nodes are available")
    until(lambda: site.look(deployment, made) == waits, "it does not say why it waits", 5)
    site.remove(deployment, made)


def test_looking_at_a_container_is_no_error_to_the_infrastructure_manager(
    place: Place, site: InfrastructureManager, deployment: str
) -> None:
    made = site.create(deployment, text(), {"image": IMAGE, "mem_size": "3 GiB"})
    assert run(place, site, deployment, made).state == State.READY
    log = (place.folder / "im.log").read_text(encoding="utf-8")
    assert "Error converting memory unit" not in log
    with httpx.Client(verify=context(place.authority)) as client:
        lines = f"type = InfrastructureManager; token = {place.tokens['ada']}"
        where = f"{place.url}/infrastructures/{made}/vms/0/memory.size"
        assert client.get(where, headers={"Authorization": lines}).text == str(3 * 2**30)
    site.remove(deployment, made)


def test_gpus_are_asked_of_kubernetes(place: Place, site: InfrastructureManager, deployment: str) -> None:
    made = site.create(deployment, text("kubernetes-gpu"), {"image": IMAGE, "num_gpus": 2})
    (there,) = place.get(DEPLOYMENTS)
    (container,) = there["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    site.remove(deployment, made)


def test_with_tls_the_output_is_https(place: Place, site: InfrastructureManager, deployment: str) -> None:
    made = site.create(deployment, text(), {"image": IMAGE, "endpoint": "https://digits.deep.test"})
    (ingress,) = place.get("networking.k8s.io/v1/ingresses")
    assert ingress["spec"]["tls"][0]["hosts"] == ["digits.deep.test"]
    # No port of the nodes beside it, which would have no TLS.
    assert [service["spec"]["type"] for service in place.get(SERVICES)] == ["ClusterIP"]
    assert run(place, site, deployment, made).outputs == {"endpoint": "https://digits.deep.test/"}
    site.remove(deployment, made)


def test_without_the_ingress_that_was_asked_for_it_has_failed(
    place: Place, site: InfrastructureManager, site_of: Callable[..., InfrastructureManager], deployment: str
) -> None:
    carl = site_of("carl")
    made = carl.create(deployment, text(), {"image": IMAGE, "endpoint": "https://digits.deep.test"})
    seen = run(place, carl, deployment, made)
    assert seen.state == State.FAILED
    assert seen.reason.startswith("a part of it was not made: Kubernetes refuses: ingresses")
    assert 'User "carl" cannot create' in seen.reason
    with pytest.raises(SiteError, match=r"Kubernetes refuses: ingresses.* is forbidden: User \"carl\" cannot delete"):
        carl.remove(deployment, made)


def test_what_an_answer_was_lost_of_is_found_and_not_made_again(
    place: Place, site: InfrastructureManager, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infrastructure_manager, "WORK", 0.2)
    with pytest.raises(httpx.ReadTimeout):
        site.create(deployment, text(), {"image": IMAGE})
    monkeypatch.undo()
    (made,) = site.find(deployment)
    until(lambda: len(place.get(DEPLOYMENTS)) == 1, "it was not made")
    assert run(place, site, deployment, made).state == State.READY
    removed(site, deployment)


def removed(site: InfrastructureManager, deployment: str) -> None:
    """Remove all of a deployment, as the steps do."""

    def gone() -> bool:
        there = site.find(deployment)
        for one in there:
            site.remove(deployment, one)
        return not there

    until(gone, "it was not removed")


def test_while_it_is_made_it_is_found_as_soon_as_it_is_there(site: InfrastructureManager, deployment: str) -> None:
    made: list[str] = []
    maker = threading.Thread(target=lambda: made.append(site.create(deployment, text(), {"image": IMAGE})))
    maker.start()
    seen = []
    while maker.is_alive():
        seen.append(site.find(deployment))
    maker.join()
    assert site.find(deployment) == made
    # Once found it stays found: an infrastructure without its name is waited for.
    first = seen.index(made) if made in seen else len(seen)
    assert all(found == [] for found in seen[:first])
    assert all(found == made for found in seen[first:])
    removed(site, deployment)


def test_what_is_in_the_middle_of_being_made_is_removed_in_the_end(
    place: Place, site: InfrastructureManager, deployment: str
) -> None:
    maker = threading.Thread(target=lambda: site.create(deployment, text(), {"image": IMAGE}))
    maker.start()
    until(lambda: bool(site.find(deployment)), "it was not found")
    removed(site, deployment)
    maker.join()
    removed(site, deployment)


def test_two_that_were_made_are_both_found(site: InfrastructureManager, deployment: str) -> None:
    both = {site.create(deployment, text(), {"image": IMAGE}) for _ in range(2)}
    assert set(site.find(deployment)) == both
    assert len(both) == 2
    removed(site, deployment)


def test_whose_token_is_refused_by_kubernetes_is_told_in_its_words(
    place: Place, site: InfrastructureManager, site_of: Callable[..., InfrastructureManager], deployment: str
) -> None:
    eve = site_of("eve")
    with pytest.raises(SiteError) as refused:
        eve.create(deployment, text(), {"image": IMAGE})
    assert str(refused.value) == (
        'Kubernetes refuses: deployments.apps is forbidden: User "eve" cannot create resource "deployments" in API'
        ' group "apps" in the namespace "deep"'
    )
    assert eve.find(deployment) == []


def test_others_do_not_see_it(
    site: InfrastructureManager, site_of: Callable[..., InfrastructureManager], deployment: str
) -> None:
    made = site.create(deployment, text(), {"image": IMAGE})
    eve = site_of("eve")
    assert eve.find(deployment) == []
    for what in (eve.look, eve.remove):
        with pytest.raises(SiteError, match=r"the Infrastructure Manager refuses: .*not granted"):
            what(deployment, made)
    site.remove(deployment, made)


def test_a_token_that_is_not_taken_says_what_to_do(place: Place, site: InfrastructureManager, deployment: str) -> None:
    ended = place.issuer.token("ada")
    del place.issuer.usable[ended]
    for token, said in ((ended, "Code: 40"), ("a.b.c", "decode")):
        given = Credentials(token, NAMESPACE)
        bad = InfrastructureManager(
            "local", place.url, place.kubernetes, place.authority, {deployment: given}.__getitem__
        )
        refused = rf"does not take the token \(.*{said}.*Next: log in"
        with pytest.raises(SiteError, match=refused):
            bad.find(deployment)
        with pytest.raises(SiteError, match=refused):
            bad.look(deployment, str(uuid4()))
        with pytest.raises(SiteError, match=refused):
            bad.create(deployment, text(), {"image": IMAGE})


def test_while_the_identity_provider_is_away_it_is_tried_again(
    place: Place, site: InfrastructureManager, deployment: str
) -> None:
    made = site.create(deployment, text(), {"image": IMAGE})
    place.issuer.down = True
    for act in (
        lambda: site.find(deployment),
        lambda: site.look(deployment, made),
        lambda: site.remove(deployment, made),
    ):
        with pytest.raises(AwayError, match="cannot ask the identity provider"):
            act()
    place.issuer.down = False
    site.remove(deployment, made)


def test_only_what_can_be_changed_is_changed(place: Place, site: InfrastructureManager, deployment: str) -> None:
    asked = {"image": IMAGE, **STORAGE}
    made = site.create(deployment, text("kubernetes-storage"), asked)
    run(place, site, deployment, made)
    for _ in range(2):
        site.update(
            deployment, made, text("kubernetes-storage"), {**asked, "image": "deep/digits:2", "mem_size": "2 GiB"}
        )
    (there,) = place.get(DEPLOYMENTS)
    (container,) = there["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "deep/digits:2"
    assert container["resources"]["limits"]["memory"] == str(2**31)
    for other, what in (
        ({"storage_bucket": "other"}, r"found a change of module: properties\)"),
        ({"endpoint": "https://digits.deep.test"}, r"found a change of runtime: publish_ports\)"),
        ({"scratch_size": "2 GiB"}, r"found a change of scratch: properties\)"),
    ):
        with pytest.raises(SiteError, match=what):
            site.update(deployment, made, text("kubernetes-storage"), {**asked, **other})
    site.remove(deployment, made)


def test_what_somebody_else_has_removed_has_failed_and_can_be_removed(
    place: Place, site: InfrastructureManager, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = site.create(deployment, text(), {"image": IMAGE})
    (there,) = place.get(DEPLOYMENTS)
    place.admin.delete(f"{path(DEPLOYMENTS)}/{there['metadata']['name']}").raise_for_status()
    monkeypatch.setattr(infrastructure_manager, "UNSEEN", 1)
    until(lambda: "has not seen its pod" in site.look(deployment, made).reason, "it still seems to be there")
    until(lambda: not place.get(PODS), "its pods are still there")
    site.remove(deployment, made)
    assert site.find(deployment) == []


def test_the_infrastructure_manager_killed_and_started_again_has_lost_nothing(
    place: Place, site: InfrastructureManager, deployment: str
) -> None:
    made = site.create(deployment, text(), {"image": IMAGE})
    assert run(place, site, deployment, made).state == State.READY
    place.kill()
    with pytest.raises(httpx.ConnectError):
        site.look(deployment, made)
    place.start()
    assert site.find(deployment) == [made]
    assert site.look(deployment, made).state == State.READY
    site.remove(deployment, made)


def test_the_steps_make_it_once_and_leave_nothing(
    place: Place, site: InfrastructureManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = store.engine(f"sqlite:///{tmp_path / 'db'}")
    store.Base.metadata.create_all(engine)
    steps = Steps(engine, {"first": site}, list, ask, Limits())
    with Session(engine) as session, session.begin():
        one = Deployment(
            issuer="i", subject="s", username="ada", organisation="deep", template=text(), parameters={"image": IMAGE},
            status=Status.CREATE_IN_PROGRESS,
        )  # fmt: skip
        session.add(one)
        session.flush()
        uuid = one.uuid
    assert steps.begin(uuid, 1, "first")
    monkeypatch.setattr(infrastructure_manager, "WORK", 0.2)
    with pytest.raises(httpx.ReadTimeout):
        steps.make(uuid, 1, "first")
    monkeypatch.undo()
    made, refused = steps.make(uuid, 1, "first")
    assert (steps.make(uuid, 1, "first"), refused) == ((made, ""), "")
    until(lambda: bool(place.get(PODS)), "no pod was made")
    assert len(place.get(DEPLOYMENTS)) == 1
    place.set_phase("Running")
    until(lambda: steps.look(uuid, 1, "first", made, 0)["progress"] == Progress.DONE, "it does not get ready")
    until(lambda: steps.remove(uuid, "first", 0)["progress"] == Progress.DONE, "it was not removed")
    engine.dispose()
