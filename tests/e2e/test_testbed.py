"""One testbed from the first command to the last, in the order in which a tester meets them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from testbed import sites, testbed
from testbed.artifacts import api
from testbed.paths import state_dir
from tests.acceptance.probes.authorisation import ALLOWED, UNKNOWN, ApiServer, Request
from tests.e2e.support import DEEP, NAME, ROOT, deep_json, run_deep, wait_for

pytestmark = pytest.mark.live

# Seconds for which an API server believes a token that it has seen (Kubernetes' cache of tokens: 10), and one to spare.
BELIEVED_FOR = 11
# Seconds until servers that were started again answer.
PATIENCE = 120
KILL_AFTER = ": Make the cluster"
KUBECTL = (
    "testbed", "shell", "node1", f"--name={NAME}", "--", "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "get",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def removed_afterwards() -> Iterator[None]:
    """No testbed of an earlier, broken run; none left by this one."""
    run_deep("testbed", "down", f"--name={NAME}")
    yield
    run_deep("testbed", "down", f"--name={NAME}")


def _wait_for_task(process: subprocess.Popen[bytes], text: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if any(
            text in log.read_text(encoding="utf-8", errors="replace")
            for log in (state_dir(NAME) / "logs").glob("*.log")
        ):
            return
        time.sleep(0.2)
    raise AssertionError(f"no task of {text} seen; up ended with {process.poll()}")


def test_up_repairs_a_run_that_was_killed_in_the_playbook() -> None:
    """SIGKILL while the control plane is being made; the next `up` finishes and every check passes."""
    with subprocess.Popen(
        [DEEP, "testbed", "up", f"--name={NAME}"],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _wait_for_task(process, KILL_AFTER)
        os.killpg(process.pid, signal.SIGKILL)

    verdict = deep_json("testbed", "up", f"--name={NAME}")["verdict"]

    # It outlives the testbed: what the gate calls the evidence of the acceptance tests.
    (ROOT / "reports").mkdir(exist_ok=True)
    shutil.copy(Path(verdict["report"]) / "verdict.json", ROOT / "reports" / "acceptance.json")
    assert verdict["ok"]
    assert verdict["simulated"]
    assert verdict["failures"] == []
    assert sum(check["outcome"] == "passed" for check in verdict["checks"]) >= 20
    table = json.loads((Path(verdict["report"]) / "authorisation.json").read_text(encoding="utf-8"))
    assert table["cases"] >= 80
    assert table["mismatches"] == 0
    silent = {check["id"] for check in verdict["checks"] if check["outcome"] == "skipped"}
    # It takes two control planes.
    silent -= {"authorisation::every_control_plane_says_the_same"}
    assert not [name for name in silent if name.startswith(("authorisation::", "oidc_proxy::", "login_page::"))]


def test_up_again_changes_nothing() -> None:
    """A second `up` finds everything as it is."""
    deep_json("testbed", "up", f"--name={NAME}", "--until=deploy")
    log = max((state_dir(NAME) / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
    recap = log.read_text(encoding="utf-8").rpartition("PLAY RECAP")[2]
    changed = [line for line in recap.splitlines() if "changed=" in line and "changed=0" not in line]
    assert "changed=0" in recap
    assert changed == []


def test_status_names_nodes_and_their_health() -> None:
    """Two running nodes without a failed unit."""
    status = deep_json("testbed", "status", f"--name={NAME}")
    assert [node["name"] for node in status["nodes"]] == ["node1", "node2"]
    assert all(node["failed_units"] == [] for node in status["nodes"])


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("false", 1)])
def test_shell_passes_the_exit_code_on(command: str, status: int) -> None:
    """What the command on the node returns is what the user's script sees."""
    run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", command, status=status)


def _kubectl(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The official client on this machine."""
    program = kubeconfig.parent / "kubectl"
    if not program.exists():
        shutil.copyfile(api.mirror_dir() / "kubernetes" / api.version("kubernetes") / "kubectl", program)
        program.chmod(0o755)
    return subprocess.run(
        [program, f"--kubeconfig={kubeconfig}", *arguments], check=False, capture_output=True, text=True
    )


def test_kubeconfig_serves_kubectl(tmp_path: Path) -> None:
    """The printed kubeconfig works with the official client from the host."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(run_deep("testbed", "kubeconfig", f"--name={NAME}").stdout, encoding="utf-8")
    printed = _kubectl(kubeconfig, "get", "nodes", "-o", "json")
    assert printed.returncode == 0, printed.stderr
    ready = [
        condition["status"]
        for node in json.loads(printed.stdout)["items"]
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    assert ready == ["True", "True"]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of the person ``member``, who is logged in."""
    run_deep("login", "--as=member", f"--name={NAME}")
    run_deep("kubeconfig", f"--name={NAME}", f"--output={tmp_path / 'kubeconfig'}")
    yield tmp_path / "kubeconfig"
    run_deep("logout", f"--name={NAME}")


def test_a_person_uses_kubectl_within_the_own_organisation(member: Path) -> None:
    """A member works in the organisation's namespace, and is refused the cluster's nodes and the other namespace."""
    assert deep_json("whoami", f"--name={NAME}")["groups"] == ["imaging"]
    assert "oidc:member" in _kubectl(member, "auth", "whoami").stdout
    made = _kubectl(member, "--namespace=imaging", "create", "configmap", "person", "--from-literal=a=b")
    assert made.returncode == 0, made.stderr
    assert _kubectl(member, "--namespace=imaging", "delete", "configmap", "person").returncode == 0
    for refused in (("get", "nodes"), ("--namespace=climate", "get", "pods"), ("get", "secrets", "--all-namespaces")):
        assert "forbidden" in _kubectl(member, *refused).stderr


def test_whoever_logged_out_is_told_to_log_in(member: Path) -> None:
    """The client passes on what ``deep`` says."""
    run_deep("logout", f"--name={NAME}")
    assert f"next: deep login local --name {NAME}" in _kubectl(member, "get", "pods").stderr


def _api(token: str) -> int:
    """What the API server answers to whoever asks for the pods of the organisation ``imaging`` with a token."""
    address = deep_json("testbed", "status", f"--name={NAME}")["nodes"][0]["address"]
    authority = sites.public_dir("local", NAME) / "kubernetes-ca.crt"
    pods = Request("GET", "/api/v1/namespaces/imaging/pods", {})
    return ApiServer(address, f"https://{address}:6443", str(authority)).status(pods, token)


def _token() -> dict[str, str]:
    """A token of whoever is logged in, with its end."""
    return dict(deep_json("token", f"--name={NAME}"))


def _iam(**variables: object) -> None:
    """Bring the IAM to what the inventory says, with other ``variables``."""
    run_deep("site", "run", "local", "iam", f"--name={NAME}", f"--extra-vars={json.dumps(variables)}")


def test_a_right_that_is_taken_away_ends_with_the_token(member: Path) -> None:
    """Out of the group, then disabled: the old token goes on to its end at the most, and a new one is worth less."""
    pods = ("--namespace=imaging", "get", "pods")
    # `deep` renews a token of which less than thirty seconds are left.
    lifetime = 45
    short = {"iam_access_token_seconds": lifetime}
    changes: dict[str, dict[str, object]] = {
        "forbidden": {"groups": []},
        "the login at local": {"groups": ["imaging"], "enabled": False},
    }

    def said(refusal: str) -> bool:
        return refusal in _kubectl(member, *pods).stderr

    try:
        _iam(**short)
        run_deep("login", "--as=member", f"--name={NAME}")
        assert _kubectl(member, *pods).returncode == 0
        before = _token()
        for refusal, change in changes.items():
            _iam(**short, iam_users=[{"name": "member", **change}])
            wait_for(partial(said, refusal), refusal, seconds=lifetime + BELIEVED_FOR)
        end = datetime.fromisoformat(before["until"]).timestamp()
        time.sleep(max(0.0, end + BELIEVED_FOR - time.time()))
        assert _api(before["access_token"]) == UNKNOWN
    finally:
        _iam()


def test_what_a_stolen_key_has_signed_is_refused(member: Path) -> None:
    """The API server has seen the token, and forgets the key as the IAM does; who logs in again goes on."""
    stolen = _token()["access_token"]
    assert _api(stolen) == ALLOWED
    run_deep("site", "run", "local", "rotate_iam_keys", f"--name={NAME}", "--extra-vars=iam_key_keep_seconds=0")
    time.sleep(BELIEVED_FOR)
    assert _api(stolen) == UNKNOWN
    run_deep("login", "--as=member", f"--name={NAME}")
    assert _kubectl(member, "--namespace=imaging", "get", "pods").returncode == 0


def test_the_cluster_goes_on_while_the_iam_is_down(member: Path) -> None:
    """Tokens are believed, nobody can log in, an API server starts; all is well again once the IAM is back."""
    node = ("testbed", "shell", "node1", f"--name={NAME}", "--")
    pods = ("--namespace=imaging", "get", "pods")
    run_deep(*node, "systemctl", "stop", "keycloak")
    try:
        assert _kubectl(member, *pods).returncode == 0
        said = run_deep("login", "--as=reader", f"--name={NAME}", status=1).stderr
        assert "does not answer" in said
        assert "next: " in said
        run_deep(*node, "sh", "-c", "kill -9 $(pidof kube-apiserver)")
        wait_for(lambda: "ok" in run_deep(*KUBECTL, "--raw=/readyz", status=None).stdout, "an API server", PATIENCE)
        others = _processes()
        assert run_deep(*KUBECTL, "nodes").returncode == 0
        assert "Unauthorized" in _kubectl(member, *pods).stderr, "it has not seen the issuer's keys"
    finally:
        run_deep(*node, "systemctl", "start", "keycloak")
    wait_for(lambda: _kubectl(member, *pods).returncode == 0, "a token that is believed again", PATIENCE)
    run_deep("login", "--as=reader", f"--name={NAME}")
    assert _processes() == others, "something else was restarted"


def _processes() -> list[str]:
    """Identifiers of what believes tokens or runs containers on the first node, and of the cluster's own servers."""
    units = "containerd kubelet docker-registry deephdc-oidc-proxy"
    script = f"systemctl show --property=MainPID --value {units}; pidof kube-apiserver etcd"
    return on("node1", script).split()


def test_verify_fails_and_says_why_when_a_service_is_down() -> None:
    """A stopped registry is a failed check and exit status 1, not a pass."""
    run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", "systemctl", "stop", "docker-registry")
    try:
        verdict = deep_json("testbed", "verify", f"--name={NAME}", status=1)
    finally:
        run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", "systemctl", "start", "docker-registry")
    assert not verdict["ok"]
    assert any("docker-registry" in json.dumps(failure) for failure in verdict["failures"])
    assert sum(check["outcome"] == "passed" for check in verdict["checks"]) >= 10


def test_the_suite_runs_as_a_playbook() -> None:
    """verify.yml, as a site without `deep` runs it."""
    password = f"--extra-vars=verify_vault_password_file={state_dir(NAME) / 'vault-password'}"
    run_deep("site", "run", "local", "verify", f"--name={NAME}", password)


# Test of the assessment to the words by which it names what was planted.
PLANTED = {
    "hosts::nothing_undeclared_listens[node1]": ["9999", "9998"],
    "assessment::whatever_can_be_reached_is_encrypted[node1]": ["node1:9999"],
    "assessment::encryption_is_strong[node1]": ["node1:9998", "TLS_RSA_WITH_AES_128_CBC_SHA"],
    "assessment::ssh_takes_no_password[node1]": ["password"],
    "assessment::no_secret_can_be_read_by_others[node1]": ["/etc/planted/service.key"],
    "assessment::nothing_can_be_written_by_everybody[node1]": ["/usr/local/lib/planted/job"],
    "assessment::no_common_password_opens_anything[node1]": ["docker-registry", "as admin"],
    "assessment::every_endpoint_asks_who_it_is[node1]": ["node1:9999", "node1:9998"],
    "assessment::no_way_into_the_cluster_is_undeclared": ["Service planted/way-in", "30999"],
}
# What is asked of the service by criteria, where one of them is found.
CRITERIA = {"SvcQC.Sec01", "SvcQC.Sec01.1", "SvcQC.Sec02", "SvcQC.Sec06.4", "SvcQC.Sec07.6"}


@pytest.fixture
def planted() -> Iterator[None]:
    """Weaknesses on a node, taken back afterwards."""
    script = (Path(__file__).parent / "planted.sh").read_text(encoding="utf-8")
    for verb in ("plant", "remove"):
        done = testbed.run_on(NAME, "node1", ["sh", "-euc", script, "planted", verb])
        assert done["ok"], done["output"]
        if verb == "plant":
            yield


@pytest.mark.usefixtures("planted")
def test_an_assessment_finds_every_weakness_that_was_planted(tmp_path: Path) -> None:
    """Ports, a key, a program, a password, old encryption and ways in: each is named, and the site is held back."""
    made = deep_json("sqa", "assess", "local", f"--name={NAME}", f"--output={tmp_path}", status=1)
    found = {one["rule"]: one["message"] for check in made["checks"] for one in check["findings"]}
    for name, words in PLANTED.items():
        assert all(word in found.get(name, "") for word in words), (name, found.get(name))
    of_site = {name for name in found if "::" in name}
    assert of_site == set(PLANTED)
    verdicts = {one["id"]: one["verdict"] for one in made["criteria"]}
    assert {verdicts[name] for name in CRITERIA} == {"fail"}
    assert (tmp_path / "sqa.html").is_file()


def test_without_them_an_assessment_finds_nothing_at_the_site() -> None:
    """The site itself passes; what no machine can say of a testbed is not its failure."""
    verdict = deep_json("site", "verify", "local", f"--name={NAME}", "--assess", "--select=assessment")
    assert verdict["failures"] == []
    assert sum(one["outcome"] == "passed" for one in verdict["checks"]) >= 10


def test_check_mode_is_clean_on_a_deployed_site() -> None:
    """`deep site deploy --check` finds nothing to change."""
    assert deep_json("site", "deploy", "local", f"--name={NAME}", "--check")["changed"] == 0


def test_time_slicing_multiplies_the_gpus_until_it_is_taken_back() -> None:
    """Four pods per GPU while the testbed is set so; afterwards one again."""
    name = f"--name={NAME}"
    gpus = (*KUBECTL, "nodes", "-o", "jsonpath={.items[*].status.allocatable.nvidia\\.com/gpu}")
    before = [int(count) for count in run_deep(*gpus).stdout.split()]
    run_deep("testbed", "up", name, "--until=deploy", "--set=gpu_sharing=time_slicing", "--set=gpu_sharing_replicas=4")
    verdict = deep_json("testbed", "verify", name, "--select=every_gpu_is_offered or time_slicing or jobs_queue")
    assert {check["outcome"] for check in verdict["checks"]} == {"passed"}
    assert [int(count) for count in run_deep(*gpus).stdout.split()] == [4 * count for count in before]
    run_deep("testbed", "up", name, "--until=deploy", "--set=gpu_sharing=", "--set=gpu_sharing_replicas=")
    assert [int(count) for count in run_deep(*gpus).stdout.split()] == before


@pytest.fixture
def bundle_address(tmp_path: Path) -> Iterator[str]:
    """Where a bundle is served to the nodes, as a site without a network does it."""
    bundle = tmp_path / "bundle"
    run_deep("artifacts", "bundle", str(bundle))
    run_deep("artifacts", "verify", f"--bundle={bundle}")
    gateway = deep_json("testbed", "status", f"--name={NAME}")["gateway"]
    serve = [str(DEEP), "artifacts", "serve", f"--folder={bundle}/mirror", f"--bind={gateway}", "--port=0", "--json"]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


def on(node: str, script: str) -> str:
    """What a script on a node says."""
    return run_deep("testbed", "shell", node, f"--name={NAME}", "--", "sh", "-ec", script).stdout


def assert_nothing_of_a_cluster(node: str) -> None:
    """No credentials, rules, links, files of the network of pods, containers, nor a kubelet to come back."""
    # What the next join needs stays: the host's own part of the kubelet's configuration.
    own = "! -name resolv.conf ! -path '*/kubelet.conf.d/*'"
    assert on(node, f"find /etc/kubernetes /etc/cni/net.d /var/lib/etcd -type f {own} 2>/dev/null || true") == ""
    assert on(node, "(iptables-save; ip6tables-save) | grep -E 'KUBE-|CNI-|DEEPHDC' || true") == ""
    assert on(node, "ip -oneline link | grep -E 'cni0|veth' || true") == ""
    assert on(node, "ip route show proto 98") == ""
    assert on(node, "ctr --namespace=k8s.io containers list --quiet 2>/dev/null") == ""
    assert on(node, "systemctl is-enabled kubelet || true").strip() == "disabled"


def test_a_changed_setting_reaches_every_member() -> None:
    """The kubelets' configuration and the API server's certificate are what the site says, before and after."""
    name = f"--name={NAME}"
    pods = (*KUBECTL, "nodes", "-o", "jsonpath={.items[*].status.capacity.pods}")
    before = run_deep(*pods).stdout
    names = "kubernetes_control_plane_names"
    settings = ("--set=kubernetes_control_plane_max_pods=77", f"--set={names}=[localhost, 127.0.0.1, api.{NAME}.test]")
    run_deep("testbed", "up", name, "--until=deploy", *settings)
    assert run_deep(*pods).stdout == "77 77"
    served = "openssl s_client -connect 127.0.0.1:6443 </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName"
    assert f"api.{NAME}.test" in on("node1", served)
    run_deep("testbed", "up", name, "--until=deploy", "--set=kubernetes_control_plane_max_pods=", f"--set={names}=")
    assert run_deep(*pods).stdout == before


def test_another_version_is_refused_before_anything_is_changed() -> None:
    """A newer Kubernetes is an upgrade, in an order that no layer knows."""
    arguments = ("site", "run", "local", "kubernetes", f"--name={NAME}", "--extra-vars=kubernetes_version=1.99.0")
    failed = run_deep(*arguments, status=1).stderr
    assert "1.99.0" in failed
    assert "reset.yml" in failed


def test_a_node_is_added_from_a_bundle_and_removed(bundle_address: str) -> None:
    """A third node joins with nothing but a bundle; removed again it is gone and holds no trace of the cluster."""
    setting = f"--set=artifact_mirror={bundle_address}"
    deep_json("testbed", "up", f"--name={NAME}", "--nodes=3", "--until=nodes", setting)
    run_deep("site", "run", "local", "add_node", f"--name={NAME}", "--extra-vars=node=node3")
    nodes = (*KUBECTL, "nodes", "-o", "name")
    assert "node/node3" in run_deep(*nodes).stdout
    run_deep("site", "run", "local", "remove_node", f"--name={NAME}", "--extra-vars=node=node3")
    assert "node/node3" not in run_deep(*nodes).stdout
    assert_nothing_of_a_cluster("node3")


def test_a_node_that_is_down_is_removed() -> None:
    """Nobody can end its pods: they are deleted, and the playbook does not wait for the host."""
    run_deep("site", "run", "local", "add_node", f"--name={NAME}", "--extra-vars=node=node3")
    subprocess.run(["docker", "stop", "--time=2", f"deep-{NAME}-node3"], check=True, capture_output=True)
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    deadline = time.monotonic() + 180
    while run_deep(*KUBECTL, "node", "node3", "-o", ready).stdout == "True" and time.monotonic() < deadline:
        time.sleep(2)
    run_deep("site", "run", "local", "remove_node", f"--name={NAME}", "--extra-vars=node=node3")
    assert "node/node3" not in run_deep(*KUBECTL, "nodes", "-o", "name").stdout
    pods = run_deep(*KUBECTL, "pods", "--all-namespaces", "--field-selector=spec.nodeName=node3", "-o", "name")
    assert pods.stdout == ""


def test_reset_takes_the_cluster_apart() -> None:
    """Only with the site's name; then nothing of the cluster is left on the hosts."""
    run_deep("site", "run", "local", "reset", f"--name={NAME}", status=1)
    run_deep("site", "run", "local", "reset", f"--name={NAME}", "--extra-vars=confirm=local", "--limit=node1,node2")
    for node in ("node1", "node2"):
        assert_nothing_of_a_cluster(node)


def test_down_leaves_nothing_of_it() -> None:
    """Containers, network, control groups and state are gone, and `down` again is no error."""
    run_deep("testbed", "down", f"--name={NAME}")
    assert not state_dir(NAME).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/deep-{NAME}"))
    label = f"label=org.deephdc.testbed={NAME}"
    for kind in ("container", "network", "volume"):
        listed = subprocess.run(
            ["docker", kind, "ls", "--quiet", f"--filter={label}"], check=True, capture_output=True, text=True
        )
        assert listed.stdout == ""
    run_deep("testbed", "down", f"--name={NAME}")
