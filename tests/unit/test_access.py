"""Who may do what in the cluster: ABAC policy, issuers, organisations, and what of them is refused."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from plugins.filter.access import (
    abac_policy,
    abac_resource_problems,
    abac_rule_problems,
    issuer_problems,
    namespace_problems,
    organisation_problems,
    organisations,
    quota_problems,
)
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path


def certificate() -> str:
    """A certificate as text (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "iam.test")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


ROLE = "kubernetes_control_plane"
HOST = "cp1.ifca.example"
ISSUER: dict[str, Any] = {
    "url": "https://iam.test/realms/deep",
    "audiences": ["kubernetes"],
    "username_claim": "preferred_username",
    "groups_claim": "groups",
    "prefix": "oidc:",
    "certificate_authority": certificate(),
}
OTHER = {**ISSUER, "url": "https://idp.test", "prefix": "idp:", "audiences": ["a", "b"], "certificate_authority": ""}
PODS: dict[str, Any] = {"group": "oidc:operators", "namespace": "imaging", "apiGroup": "", "resource": "pods"}
# Through them members could lift their limits or give themselves rights.
GUARDS = {
    "resourcequotas", "limitranges", "networkpolicies", "roles", "rolebindings", "serviceaccounts", "namespaces", "*",
    "endpoints", "endpointslices", "clusterroles", "clusterrolebindings",
}  # fmt: skip


def test_an_organisation_has_members_readers_and_a_quota() -> None:
    (one, two) = organisations(
        [{"name": "imaging"}, {"name": "climate", "members": ["a"], "readers": [], "quota": {"pods": 1}}]
    )
    assert one == {"name": "imaging", "members": ["imaging"], "readers": ["imaging-readers"], "quota": {}}
    assert two == {"name": "climate", "members": ["a"], "readers": [], "quota": {"pods": 1}}


@pytest.mark.parametrize("name", ["Imaging", "a.b", "", "-a", "a" * 64, "kube-system", "kube-public", "default"])
def test_a_name_that_cannot_be_a_namespace_is_refused(name: str) -> None:
    (said,) = organisation_problems([{"name": name}])
    assert f"name '{name}'" in said
    assert "Next: " in said


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (
            {"name": "imaging", "members": "imaging"},
            'imaging is not understood (found members: "imaging", needed a',
        ),
        ({"name": "imaging", "members": None}, "members: null"),
        ({"name": "imaging", "readers": ["a", ""]}, 'readers: ["a", ""]'),
        ({"name": "imaging", "readers": [True]}, "readers: [true]"),
        ({"name": "imaging", "quotas": {"pods": 1}}, "found quotas, needed only name, members, readers, quota"),
        ({"name": "imaging", "quota": None}, "quota: null"),
        ({"name": "imaging", "quota": [{"pods": 1}]}, "quota: [{"),
        ({"members": ["a"]}, "number 1 is not understood (found no name"),
        ({"name": True}, "found name: true, needed a name, in quotes"),
        ({"name": None}, "found name: null"),
        ("imaging", 'found "imaging", needed a mapping'),
    ],
)
def test_an_organisation_of_another_form_is_refused(declared: Any, said: str) -> None:
    (found,) = organisation_problems([declared])
    assert said in found
    assert "Next: correct it in site_organisations" in found
    # A text for a list would be taken apart, and each letter be a group.
    with pytest.raises(AnsibleFilterError, match="is not understood"):
        organisations([declared])


def test_organisations_are_a_list() -> None:
    assert "found null, needed a list" in organisation_problems(None)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["on", "true", "null", "5"])
def test_a_name_stays_a_text(name: str) -> None:
    settings: dict[str, Any] = {"site_organisations": [{"name": name, "members": ["off"], "readers": []}]}
    found = rendered("organisations.yaml.j2", "kubernetes_organisations", **settings)
    named = [one for one in found if one and "deephdc.org/organisation" in one["metadata"]["labels"]]
    assert len(named) == 5
    for one in named:
        assert one["metadata"].get("namespace", one["metadata"]["name"]) == name
        assert one["metadata"]["labels"]["deephdc.org/organisation"] == name


def test_good_names_pass_and_a_name_that_is_there_twice_does_not() -> None:
    assert organisation_problems([{"name": "imaging"}, {"name": "a1-b"}, {"name": "kube"}, {"name": "a" * 63}]) == []
    assert "twice" in organisation_problems([{"name": "imaging"}, {"name": "imaging"}])[0]


def test_a_quota_is_made_of_quantities() -> None:
    assert quota_problems([{"name": "a", "quota": {"pods": 5, "requests.memory": "8Gi", "requests.cpu": "0.5"}}]) == []
    (said,) = quota_problems([{"name": "a", "quota": {"pods": "many"}}])
    assert "organisation a" in said
    assert "pods: 'many'" in said


@pytest.mark.parametrize(
    "name",
    [
        "requests.nvidia.com/gpu",
        "requests.nvidia.com/gpu.shared",
        "requests.nvidia.com/mig-1g.5gb",
        "requests.nvidia.com/mig-1g.10gb.me",
        "requests.nvidia.com/mig-1c.2g.20gb",
        "requests.amd.com/gpu",
        "count/jobs.batch",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims",
    ],
)
def test_a_quota_on_what_is_there_passes(name: str) -> None:
    assert quota_problems([{"name": "a", "quota": {name: "4"}}]) == []


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("nvidia.com/gpu", 4, "requests. before the name"),
        ("limits.nvidia.com/gpu", 4, "requests. before the name"),
        ("requests.nvidia.com/gpus", 4, "a name that NVIDIA's device plugin gives"),
        ("requests.nvidia.com/mig-1g", 4, "a name that NVIDIA's device plugin gives"),
        ("requests.nvidia.com/gpu", "0.5", "a whole number"),
        ("requests.nvidia.com/gpu", "1k", "a whole number"),
        ("requests.nvidia.com/gpu", "all", "a quantity"),
    ],
)
def test_a_quota_that_limits_nothing_is_refused(name: str, value: Any, needed: str) -> None:
    (said,) = quota_problems([{"name": "a", "quota": {name: value}}])
    assert f"found {name}: {value!r}, needed {needed}" in said


def test_a_namespace_of_somebody_else_is_no_organisation() -> None:
    ours = {"metadata": {"name": "imaging", "labels": {"app.kubernetes.io/part-of": "deephdc-organisations"}}}
    theirs = {"metadata": {"name": "climate", "labels": {"app.kubernetes.io/part-of": "other"}}}
    bare = {"metadata": {"name": "weather"}}
    there = json.dumps({"items": [ours, theirs, bare]})
    assert namespace_problems([{"name": "imaging"}, {"name": "new"}], there) == []
    said = namespace_problems([{"name": "climate"}, {"name": "weather"}], there)
    assert ["found climate without" in said[0], "found weather without" in said[1]] == [True, True]
    assert "kubectl label namespace NAME app.kubernetes.io/part-of=deephdc-organisations" in said[0]


@pytest.mark.parametrize("there", ["", "skipped, since /etc/kubernetes/admin.conf does not exist", "null", "{}", "[]"])
def test_without_a_cluster_every_namespace_is_free(there: str) -> None:
    assert namespace_problems([{"name": "imaging"}], there) == []


def test_the_label_of_our_namespaces_is_the_one_that_they_are_looked_for_by() -> None:
    (space,) = (
        one
        for one in rendered(
            "organisations.yaml.j2", "kubernetes_organisations", site_organisations=[{"name": "imaging"}]
        )
        if one and one["kind"] == "Namespace"
    )
    assert namespace_problems([{"name": "imaging"}], json.dumps({"items": [space]})) == []


def test_members_write_in_their_namespace_and_readers_are_not_in_the_policy() -> None:
    text = abac_policy(organisations([{"name": "imaging"}]), "oidc:", {"": ["pods"], "apps": ["deployments"]}, [PODS])
    assert [json.loads(line)["spec"] for line in text.splitlines()] == [
        {"group": "oidc:imaging", "namespace": "imaging", "apiGroup": "", "resource": "pods"},
        {"group": "oidc:imaging", "namespace": "imaging", "apiGroup": "apps", "resource": "deployments"},
        PODS,
    ]
    assert {json.loads(line)["kind"] for line in text.splitlines()} == {"Policy"}
    assert abac_policy([], "oidc:", {"": ["pods"]}, []) == ""


def test_members_may_not_write_what_limits_them_or_gives_rights() -> None:
    resources = yaml.safe_load((role_path(ROLE) / "defaults" / "main.yml").read_text())[f"{ROLE}_abac_resources"]
    granted = {name for names in resources.values() for name in names}
    assert "pods" in granted
    assert not granted & GUARDS
    assert abac_resource_problems(resources) == []


@pytest.mark.parametrize("resource", sorted(GUARDS))
def test_a_site_cannot_let_members_write_them_either(resource: str) -> None:
    (said,) = abac_resource_problems({"": ["pods"], "apps": [resource]})
    assert f"found writing {resource}, needed a resource other than" in said
    assert "Next: correct kubernetes_control_plane_abac_resources" in said
    (said,) = abac_rule_problems([{**PODS, "resource": resource}], ["oidc:"])
    assert f"writing {resource}" in said
    assert "bind a ClusterRole" in said


@pytest.mark.parametrize(
    "resources", [None, ["pods"], {"": "pods"}, {"": None}, {"": [""]}, {"apps": [5]}, {None: ["a"]}]
)
def test_resources_of_another_form_are_refused(resources: Any) -> None:
    assert "is not understood" in abac_resource_problems(resources)[0]


@pytest.mark.parametrize("resource", ["*", "pods", "services", "nodes", "secrets"])
def test_a_readonly_rule_that_runs_commands_or_tells_secrets_is_refused(resource: str) -> None:
    (said,) = abac_rule_problems([{**PODS, "resource": resource, "readonly": True}], ["oidc:"])
    assert f"readonly {resource}" in said
    assert "ClusterRole view" in said


def test_other_rules_for_people_pass() -> None:
    assert abac_rule_problems([PODS, {**PODS, "resource": "configmaps", "readonly": True}], ["oidc:"]) == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({**PODS, "group": "system:authenticated"}, "subject system:authenticated"),
        ({"user": "*", "namespace": "*", "resource": "*", "apiGroup": "*"}, "subject *"),
        ({**PODS, "user": "*"}, "subject * and oidc:operators"),
        ({"namespace": "imaging", "resource": "pods"}, "subject missing"),
        ({**PODS, "readOnly": True}, "readOnly not understood"),
        ({**PODS, "resource": "configmaps", "readonly": "yes"}, "readonly not understood"),
        ({**PODS, "namespace": 5}, "namespace no text"),
        ({**PODS, "resource": ["configmaps"]}, "resource no text"),
        ({**PODS, "resource": ["pods"], "readonly": True}, "resource no text"),
        ({**PODS, "apiGroup": None}, "apiGroup no text"),
    ],
)
def test_a_rule_for_everybody_or_one_that_is_misspelt_is_refused(rule: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in abac_rule_problems([rule], ["oidc:"]))


def test_without_an_issuer_no_rule_is_for_anybody() -> None:
    assert abac_rule_problems([PODS], [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "http://iam.test"}, "not reached by TLS"),
        ({"url": "https://me@iam.test"}, "found '@' in https://me@iam.test"),
        ({"url": "https://iam.test/?a=b"}, "found '?' in"),
        ({"prefix": ""}, "of the cluster's own"),
        ({"prefix": "system:"}, "of the cluster's own"),
        ({"audiences": []}, "no audience"),
        ({"audiences": "kubernetes"}, 'found audiences "kubernetes" of'),
        ({"audiences": ["a", ""]}, 'found audiences ["a", ""] of'),
        ({"audiences": ["a", "b", "a"]}, "found audiences a, b, a of"),
        ({"certificate_authority": "/etc/ssl/certs/ca.crt"}, 'found certificate_authority "/etc/ssl/certs/ca.crt" of'),
        ({"certificate_authority": ISSUER["certificate_authority"][:200]}, "needed the text of a certificate (PEM)"),
    ],
)
def test_an_issuer_that_opens_too_much_or_stops_the_api_server_is_refused(changes: dict[str, Any], said: str) -> None:
    assert issuer_problems([ISSUER, OTHER], "structured", "oidc:") == []
    assert said in issuer_problems([{**ISSUER, **changes}], "structured", "oidc:")[0]


@pytest.mark.parametrize("prefix", ["", "s", "system", "system:", "system:people"])
def test_no_prefix_makes_a_name_of_the_clusters_own(prefix: str) -> None:
    assert "of the cluster's own" in issuer_problems([{**ISSUER, "prefix": prefix}], "structured", prefix)[0]


@pytest.mark.parametrize(("first", "second"), [("oidc:", "oidc:"), ("oidc:", "oidc:b:"), ("oidc:b:", "oidc:")])
def test_people_of_two_issuers_cannot_have_the_same_names(first: str, second: str) -> None:
    issuers = [{**ISSUER, "prefix": first}, {**OTHER, "prefix": second}]
    (said,) = issuer_problems(issuers, "structured", "oidc:")
    assert f"found prefixes '{min(first, second)}' and '{max(first, second)}', needed prefixes of which none" in said


def test_an_issuer_knows_the_groups_of_organisations() -> None:
    (said,) = issuer_problems([OTHER], "structured", "oidc:")
    assert "found prefixes 'idp:', needed one with 'oidc:'" in said
    assert issuer_problems([OTHER], "structured", "idp:") == []
    assert issuer_problems([], "structured", "oidc:") == []


def test_an_issuer_is_there_once() -> None:
    (said,) = issuer_problems([ISSUER, {**OTHER, "url": ISSUER["url"]}], "structured", "oidc:")
    assert "there twice" in said
    assert "put the audiences of both into one entry" in said


def test_a_namespace_whose_pods_may_do_anything_is_no_organisation() -> None:
    assert "of the system" in organisation_problems([{"name": "monitoring"}], ["monitoring"])[0]
    assert organisation_problems([{"name": "monitoring"}], ["kube-system"]) == []


def test_flags_are_for_one_issuer_and_one_audience() -> None:
    assert issuer_problems([ISSUER], "flags", "oidc:") == []
    for issuers in ([ISSUER, OTHER], [OTHER]):
        assert (
            "kubernetes_control_plane_oidc to structured" in issuer_problems(issuers, "flags", issuers[0]["prefix"])[0]
        )


def ifca(**settings: Any) -> SiteVariables:
    """The site ifca with settings of its own, and hosts that were looked at."""
    inventories = repo_root() / "inventories"
    site = SiteVariables([inventories / "common", inventories / "ifca"], extra=settings)
    host = {"conntrack_settable": True, "kernel_modules": True, "bridge_netfilter": True}
    facts = {"architecture": "x86_64", "os_family": "Debian", "distribution": "Debian", "deephdc": host}
    site.give_facts(facts)
    return site


def rendered(template: str, role: str = ROLE, **settings: Any) -> Any:
    """A template of a role on the site ifca, with settings of its own."""
    site = ifca(**settings)
    text = site.render_file(role_path(role) / "templates" / template, site.variables(HOST, role))
    return list(yaml.safe_load_all(text))


def tasks(file: str, **settings: Any) -> Any:
    """(tasks of a file of the control plane, what resolves the templates in them)."""
    site = ifca(**settings)
    found = site.trusted_yaml(role_path(ROLE) / "tasks" / file)
    return found, lambda value, **more: site.render(value, site.variables(HOST, ROLE, more))


def flags(**settings: Any) -> dict[str, str]:
    """The flags of the API server."""
    documents = rendered("kubeadm.yaml.j2", **settings)
    (cluster,) = (one for one in documents if one["kind"] == "ClusterConfiguration")
    return {flag["name"]: flag["value"] for flag in cluster["apiServer"]["extraArgs"]}


def test_issuers_are_in_the_file_that_the_api_server_reads() -> None:
    (found,) = rendered("authentication.yaml.j2", kubernetes_control_plane_issuers=[ISSUER, OTHER])
    first, second = found["jwt"]
    assert first["issuer"] == {
        "url": ISSUER["url"],
        "audiences": ["kubernetes"],
        "certificateAuthority": ISSUER["certificate_authority"],
    }
    assert second["issuer"] == {"url": OTHER["url"], "audiences": ["a", "b"], "audienceMatchPolicy": "MatchAny"}
    assert first["claimMappings"]["username"] == {"claim": "preferred_username", "prefix": "oidc:"}
    assert first["claimMappings"]["groups"] == {"claim": "groups", "prefix": "oidc:"}
    assert found["anonymous"]["conditions"]


def test_without_an_issuer_there_is_no_jwt() -> None:
    (found,) = rendered("authentication.yaml.j2", iam_issuer="")
    assert "jwt" not in found


def test_the_file_and_the_flags_exclude_each_other() -> None:
    structured = flags(kubernetes_control_plane_issuers=[ISSUER])
    assert structured["authentication-config"]
    assert not [name for name in structured if name.startswith("oidc-")]
    old = flags(kubernetes_control_plane_issuers=[ISSUER], kubernetes_control_plane_oidc="flags")
    assert "authentication-config" not in old
    assert {name: value for name, value in old.items() if name.startswith("oidc-")} == {
        "oidc-ca-file": "/etc/kubernetes/deephdc/issuer-ca.crt",
        "oidc-client-id": "kubernetes",
        "oidc-groups-claim": "groups",
        "oidc-groups-prefix": "oidc:",
        "oidc-issuer-url": ISSUER["url"],
        "oidc-username-claim": "preferred_username",
        "oidc-username-prefix": "oidc:",
    }


@pytest.mark.parametrize("mode", ["structured", "flags"])
def test_an_issuer_need_not_have_an_authority_of_its_own(mode: str) -> None:
    plain = {key: value for key, value in ISSUER.items() if key != "certificate_authority"}
    settings: dict[str, Any] = {"kubernetes_control_plane_issuers": [plain], "kubernetes_control_plane_oidc": mode}
    assert issuer_problems([plain], mode, "oidc:") == []
    assert "oidc-ca-file" not in flags(**settings)
    assert rendered("kube-apiserver.yaml.j2", **settings)
    (found,) = rendered("authentication.yaml.j2", **settings)
    assert "certificateAuthority" not in found["jwt"][0]["issuer"]
    written, resolve = tasks("configure.yml", **settings)
    files = {file["path"].rpartition("/")[2]: file for file in written[-1]["deephdc.testbed.files"]["files"]}
    assert resolve(files["issuer-ca.crt"]["content"]) == ""


def test_abac_is_there_for_organisations_only() -> None:
    served = flags()
    assert served["authorization-mode"] == "Node,ABAC,RBAC"
    assert served["authorization-policy-file"].endswith("/abac-policy.jsonl")
    alone = flags(site_organisations=[])
    assert not [name for name in alone if name.startswith("authorization-")]


def test_a_changed_policy_restarts_the_api_server_and_a_changed_issuer_does_not() -> None:
    def total(**settings: Any) -> str:
        (found,) = rendered("kube-apiserver.yaml.j2", **settings)
        return str(found["metadata"]["annotations"]["deephdc.org/configuration"])

    assert total() == total(kubernetes_control_plane_issuers=[OTHER])
    assert total() != total(site_organisations=[])
    assert total() != total(kubernetes_control_plane_abac_rules=[PODS])
    old = {"kubernetes_control_plane_oidc": "flags"}
    assert total(**old, kubernetes_control_plane_issuers=[ISSUER]) != total(
        **old, kubernetes_control_plane_issuers=[OTHER]
    )


def test_keys_are_asked_for_with_a_token_for_each_issuers_audiences() -> None:
    issuers = [ISSUER, OTHER]
    ((task,), resolve) = tasks("forget_keys.yml", kubernetes_control_plane_issuers=issuers)
    assert [one["url"] for one in resolve(task["loop"])] == [ISSUER["url"], OTHER["url"]]
    for issuer in resolve(task["loop"]):
        header = resolve(task["ansible.builtin.uri"]["headers"]["Authorization"], item=issuer, **task["vars"])
        payload = header.removeprefix("Bearer ").split(".")[1]
        said = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert (said["iss"], said["aud"]) == (issuer["url"], issuer["audiences"])


INFO = 'apiserver_authentication_config_controller_last_config_info{apiserver_id_hash="sha256:00",hash="sha256:%s"} 1'


@pytest.mark.parametrize(
    ("code", "said", "taken"),
    [(0, INFO % "ab12", True), (0, INFO % "cd34", False), (0, "", True), (1, "", False), (1, INFO % "ab12", False)],
)
def test_an_api_server_has_taken_the_file_when_it_names_its_sum(code: int, said: str, taken: bool) -> None:
    site = ifca()
    _, block = site.trusted_yaml(role_path(ROLE) / "tasks" / "confirm.yml")
    seen = {"rc": code, "stdout": said, "stderr": ""}
    known = {f"{ROLE}_wanted": {"stat": {"checksum": "ab12"}}, f"{ROLE}_believed": seen}
    assert site.holds(block["block"][0]["until"], site.variables(HOST, ROLE, known)) is taken


def test_an_api_server_that_goes_on_with_other_issuers_ends_the_deployment() -> None:
    ((_, block), resolve) = tasks("confirm.yml", kubernetes_control_plane_issuers=[ISSUER, OTHER])
    (task,) = block["rescue"]
    known = {f"{ROLE}_wanted": {"stat": {"checksum": "ab12"}}, f"{ROLE}_believed": {"stdout": f"x\n{INFO % 'cd34'}"}}
    said = resolve(task["ansible.builtin.fail"]["msg"], **known, **task["vars"])
    assert said.startswith(f"{HOST}: the API server does not believe")
    assert "found a file with the sum cd34 in force" in said
    assert all(part in said for part in ("with the sum ab12)", "Next: ", ISSUER["url"], OTHER["url"]))
    known[f"{ROLE}_believed"] = {"stderr": "connection refused"}
    said = resolve(task["ansible.builtin.fail"]["msg"], **known, **task["vars"])
    assert "the sum that it does not say in force" in said


def test_only_a_file_that_is_read_while_the_api_server_runs_is_waited_for() -> None:
    found, _ = tasks("main.yml")
    assert found[-1]["ansible.builtin.include_tasks"] == "confirm.yml"
    for mode, waited in (("structured", True), ("flags", False)):
        site = ifca(kubernetes_control_plane_oidc=mode)
        assert site.holds(found[-1]["when"], site.variables(HOST, ROLE, {"ansible_check_mode": False})) is waited
