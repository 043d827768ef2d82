# SPDX-License-Identifier: Apache-2.0
"""Filters for who may do what in the cluster: virtual organisations, ABAC policy, issuers of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from ansible.errors import AnsibleFilterError
from cryptography import x509

DOCUMENTATION = r"""
name: abac_policy
short_description: Write the ABAC policy of the API server
description:
  - Members of a virtual organisation may write what they need to run workloads in the namespace of the organisation.
    Readers are not in it, because C(readonly) of ABAC lets a GET through that runs a command in a pod.
positional: _input, prefix, resources, rules
options:
  _input:
    description: Virtual organisations, completed by the filter C(organisations).
    type: list
    elements: dict
    required: true
  prefix:
    description: What is put before the groups of a token.
    type: str
    required: true
  resources:
    description: Resources that members may write, by API group.
    type: dict
    required: true
  rules:
    description: More rules of the site.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
# {{ site_organisations | deephdc.testbed.organisations | deephdc.testbed.abac_policy('oidc:', {'': ['pods']}, []) }}
"""

RETURN = r"""
_value:
  description: One JSON object a line.
  type: str
"""

Organisation = Mapping[str, Any]
ORGANISATION_KEYS = ("name", "members", "readers", "quota")
CORRECT_ORGANISATIONS = "correct it in site_organisations"
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SYSTEM_NAMESPACE = re.compile(r"kube-.*|default")
QUANTITY = re.compile(r"[0-9]+([.][0-9]+)?(m|k|[KMGTPE]i|[MGTPE])?")
# Limits of extended resources, which only requests. makes one; and what else has a slash in its name.
EXTENDED = re.compile(r"requests[.][^/]+/.+")
OTHER_COUNTED = re.compile(r"count/.+|[^/]+[.]k8s[.]io/.+")
NVIDIA = re.compile(r"requests[.]nvidia[.]com/(gpu|mig-([0-9]+c[.])?[0-9]+g[.][0-9]+gb([.-][a-z.]+)?)([.]shared)?")
PART_LABEL, PART = "app.kubernetes.io/part-of", "deephdc-organisations"
RULE_KEYS = frozenset({"user", "group", "namespace", "apiGroup", "resource", "nonResourcePath", "readonly"})
# A GET of their subresources runs commands, opens ports, or passes requests on; a secret is read whole.
READ_IS_TOO_MUCH = frozenset({"*", "pods", "services", "nodes", "secrets"})
# Who writes them lifts limits, gives rights, or (endpoints) leads traffic past network policies.
GUARDED = frozenset(
    {
        "*",
        "resourcequotas",
        "limitranges",
        "networkpolicies",
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "serviceaccounts",
        "namespaces",
        "endpoints",
        "endpointslices",
    }
)
NOT_GUARDED = f"a resource other than {', '.join(sorted(GUARDED))}"
ISSUERS = "kubernetes_control_plane_issuers"
REFUSED_ISSUER = "the API server refuses an issuer"


def problem(what: str, found: str, needed: str, next_step: str) -> str:
    """A sentence of the form that every precheck of the project uses."""
    return f"{what} (found {found}, needed {needed}). Next: {next_step}"


def organisations(declared: Sequence[Organisation]) -> list[dict[str, Any]]:
    """Each virtual organisation with what it does not say itself: members, readers and quota."""
    if faults := shape_problems(declared):
        # A text for a list would be taken apart, and each letter be a group.
        raise AnsibleFilterError(faults[0])
    return [{"members": [one["name"]], "readers": [f"{one['name']}-readers"], "quota": {}, **one} for one in declared]


def shape_problems(declared: Any) -> list[str]:
    """What of the virtual organisations is not of the form that they have."""
    if not isinstance(declared, list):
        return [problem("organisations are not understood", shown(declared), "a list", CORRECT_ORGANISATIONS)]
    return [
        problem(f"organisation {_title(one, place)} is not understood", found, needed, CORRECT_ORGANISATIONS)
        for place, one in enumerate(declared, 1)
        for found, needed in _shape_faults(one)
    ]


def shown(value: Any) -> str:
    """A value as the inventory says it."""
    return json.dumps(value, default=str)


def _title(one: Any, place: int) -> str:
    name = one.get("name") if isinstance(one, dict) else None
    return name if isinstance(name, str) and name else f"number {place}"


def _shape_faults(one: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(one, dict):
        yield shown(one), f"a mapping with {', '.join(ORGANISATION_KEYS)}"
        return
    if unknown := sorted(str(key) for key in set(one) - set(ORGANISATION_KEYS)):
        yield ", ".join(unknown), f"only {', '.join(ORGANISATION_KEYS)}"
    if not isinstance(one.get("name"), str):
        # YAML reads on, true and null, as well as numbers, as something else.
        yield f"name: {shown(one['name'])}" if "name" in one else "no name", "a name, in quotes where it is no word"
    for key in ("members", "readers"):
        if key in one and not (isinstance(one[key], list) and all(isinstance(e, str) and e for e in one[key])):
            yield f"{key}: {shown(one[key])}", "a list of groups, such as [imaging]; without the line, the default"
    if "quota" in one and not isinstance(one["quota"], dict):
        yield f"quota: {shown(one['quota'])}", 'limits by name, such as {pods: "100"}; without the line, none'


def organisation_problems(declared: Sequence[Organisation], exempt: Sequence[str] = ()) -> list[str]:
    """What is wrong with virtual organisations: their form, and their names, which become namespaces.

    ``exempt`` are namespaces whose pods may do anything on their node.
    """
    if faults := shape_problems(declared):
        return faults
    names = [str(one["name"]) for one in declared]
    found = [
        problem("an organisation cannot be a namespace", f"name '{name}'", "a DNS label", CORRECT_ORGANISATIONS)
        for name in names
        if not DNS_LABEL.fullmatch(name)
    ]
    found += [
        problem("an organisation is a namespace of the system", f"name '{name}'", "another name", CORRECT_ORGANISATIONS)
        for name in names
        if SYSTEM_NAMESPACE.fullmatch(name) or name in exempt
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    return found + [
        problem("an organisation is there twice", f"name '{name}'", "each name once", CORRECT_ORGANISATIONS)
        for name in twice
    ]


def quota_problems(declared: Sequence[Organisation]) -> list[str]:
    """What is wrong with the quotas of virtual organisations."""
    return [
        problem(f"organisation {one['name']} has no usable quota", f"{name}: {value!r}", needed, "correct its quota")
        for one in organisations(declared)
        for name, value in one["quota"].items()
        for needed in _quota_faults(str(name), str(value))
    ]


def _quota_faults(name: str, value: str) -> Iterator[str]:
    """What a limit lacks. A name that nothing in the cluster has is taken by the API server, and limits nothing."""
    if not QUANTITY.fullmatch(value):
        yield "a quantity"
    elif EXTENDED.fullmatch(name) and not value.isdecimal():
        yield "a whole number"
    if "/" in name and not EXTENDED.fullmatch(name) and not OTHER_COUNTED.fullmatch(name):
        yield "requests. before the name of a resource, such as requests.nvidia.com/gpu"
    if name.startswith("requests.nvidia.com/") and not NVIDIA.fullmatch(name):
        yield "a name that NVIDIA's device plugin gives: gpu, or that of a MIG profile, such as mig-1g.5gb"


def namespace_problems(declared: Sequence[Organisation], there: str) -> list[str]:
    """Which organisations have the name of a namespace of somebody else.

    ``there`` is what ``kubectl get namespaces --output json`` says; anything else where there is no cluster to ask.
    """
    try:
        found = {one["metadata"]["name"]: one["metadata"].get("labels", {}) for one in json.loads(there)["items"]}
    except (ValueError, TypeError, KeyError):
        return []
    names = [one["name"] for one in organisations(declared)]
    mark = f"{PART_LABEL}={PART}"
    advice = f"choose another in site_organisations, or hand it over with kubectl label namespace NAME {mark}"
    return [
        problem("a namespace is somebody else's", f"{name} without label {mark}", "a free name", advice)
        for name in names
        if name in found and found[name].get(PART_LABEL) != PART
    ]


def issuer_problems(issuers: Sequence[Mapping[str, Any]], mode: str, group_prefix: str) -> list[str]:
    """What is wrong with the issuers whose tokens the API server is to believe.

    ``group_prefix`` is before the names of groups by which organisations and administrators are known.
    """
    found = [fault for issuer in issuers for fault in _issuer_faults(issuer)]
    urls = [str(issuer["url"]) for issuer in issuers]
    for url in sorted({url for url in urls if urls.count(url) > 1}):
        next_step = f"put the audiences of both into one entry of {ISSUERS}"
        found.append(
            problem("the API server refuses an issuer that is there twice", url, "each issuer once", next_step)
        )
    return [
        *found,
        *_prefix_problems([str(issuer["prefix"]) for issuer in issuers], group_prefix),
        *_flag_problems(issuers, mode),
    ]


def _prefix_problems(prefixes: Sequence[str], group_prefix: str) -> Iterator[str]:
    for first, second in combinations(sorted(prefixes), 2):
        if second.startswith(first):
            what = "people of one issuer could have names of another's"
            needed = "prefixes of which none begins with another"
            yield problem(what, f"prefixes '{first}' and '{second}'", needed, f"correct {ISSUERS}")
    if prefixes and group_prefix not in prefixes:
        what = "no issuer knows the groups of organisations and administrators"
        next_step = f"give one the prefix in {ISSUERS}, or set iam_prefix"
        yield problem(what, f"prefixes {', '.join(map(repr, prefixes))}", f"one with '{group_prefix}'", next_step)


def _flag_problems(issuers: Sequence[Mapping[str, Any]], mode: str) -> Iterator[str]:
    if mode == "flags" and (len(issuers) > 1 or any(len(issuer["audiences"]) != 1 for issuer in issuers)):
        seen = ", ".join(f"{issuer['url']} for {'/'.join(map(str, issuer['audiences']))}" for issuer in issuers)
        next_step = f"set kubernetes_control_plane_oidc to structured, or correct {ISSUERS}"
        yield problem("flags can name one issuer only", seen, "one issuer with one audience", next_step)


def _issuer_faults(issuer: Mapping[str, Any]) -> Iterator[str]:
    url, prefix = str(issuer["url"]), str(issuer["prefix"])
    if not url.startswith("https://"):
        yield problem("an issuer is not reached by TLS", url, "https://", f"correct iam_issuer or {ISSUERS}")
    if odd := re.search(r"[?#@\s]", url):
        needed = "an address without user, query, fragment and spaces"
        yield problem(REFUSED_ISSUER, f"'{odd[0]}' in {url}", needed, f"correct iam_issuer or {ISSUERS}")
    if "system:".startswith(prefix) or prefix.startswith("system:"):
        what = "a token could name a user or group of the cluster's own"
        needed = "a prefix that no name beginning with system: begins with"
        yield problem(what, f"prefix '{prefix}' of {url}", needed, f"correct iam_prefix or {ISSUERS}")
    yield from _audience_faults(url, issuer["audiences"])
    authority = str(issuer.get("certificate_authority", ""))
    if authority and not _certificates(authority):
        found = f"certificate_authority {shown(authority[:40])} of {url}"
        needed = "the text of a certificate (PEM), not its path"
        yield problem(REFUSED_ISSUER, found, needed, f"correct {ISSUERS}, with lookup('ansible.builtin.file', PATH)")


def _audience_faults(url: str, audiences: Any) -> Iterator[str]:
    next_step = f"correct kubernetes_control_plane_audiences or {ISSUERS}"
    if not (isinstance(audiences, list) and all(isinstance(one, str) and one for one in audiences)):
        found = f"audiences {shown(audiences)} of {url}"
        yield problem(REFUSED_ISSUER, found, "a list of texts, such as [kubernetes]", next_step)
    elif not audiences:
        yield problem("tokens for any service would be let in", f"no audience of {url}", "at least one", next_step)
    elif len(set(audiences)) < len(audiences):
        yield problem(REFUSED_ISSUER, f"audiences {', '.join(audiences)} of {url}", "each once", next_step)


def _certificates(text: str) -> bool:
    """Whether a text has a certificate in it."""
    try:
        return bool(x509.load_pem_x509_certificates(text.encode()))
    except ValueError:
        return False


def abac_rule_problems(rules: Sequence[Mapping[str, Any]], prefixes: Sequence[str]) -> list[str]:
    """What is wrong with the site's own ABAC rules; ``prefixes`` are those of users and groups out of tokens."""
    where = " in kubernetes_control_plane_abac_rules"
    return [
        problem("an ABAC rule opens too much", f"{shown(rule)}: {found}", needed, f"{next_step}{where}")
        for rule in rules
        for found, needed, next_step in _rule_faults(rule, tuple(prefixes))
    ]


def _rule_faults(rule: Mapping[str, Any], prefixes: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    unknown = sorted(map(str, set(rule) - RULE_KEYS))
    if unknown or not isinstance(rule.get("readonly", False), bool):
        # The API server passes over what it does not know: a misspelt readonly would let everything be written.
        yield f"{', '.join(unknown) or 'readonly'} not understood", f"only {', '.join(sorted(RULE_KEYS))}", "correct it"
    if odd := sorted(key for key in RULE_KEYS - {"readonly"} if not isinstance(rule.get(key, ""), str)):
        # The API server does not start with it.
        yield f"{', '.join(odd)} no text", "a text each, in quotes, and one rule for each resource", "correct it"
    subjects = [str(rule[key]) for key in ("user", "group") if rule.get(key)]
    if not prefixes or not subjects or not all(subject.startswith(prefixes) for subject in subjects):
        needed = f"a user or group with the prefix {' or '.join(prefixes) or 'of an issuer'}"
        yield f"subject {' and '.join(subjects) or 'missing'}", needed, "name whom it is for"
    yield from _resource_faults(str(rule.get("resource", "")), readonly=rule.get("readonly") is True)


def _resource_faults(resource: str, *, readonly: bool) -> Iterator[tuple[str, str, str]]:
    if readonly and resource in READ_IS_TOO_MUCH:
        needed = (
            f"a resource other than {', '.join(sorted(READ_IS_TOO_MUCH))}, whose reading runs commands or tells secrets"
        )
        yield f"readonly {resource}", needed, "bind the ClusterRole view instead of the rule"
    if not readonly and resource in GUARDED:
        yield f"writing {resource}", NOT_GUARDED, "bind a ClusterRole to those who need it instead of the rule"


def abac_resource_problems(resources: Any) -> list[str]:
    """What is wrong with the resources that members of organisations may write."""
    next_step = "correct kubernetes_control_plane_abac_resources"
    good = isinstance(resources, dict) and all(
        isinstance(group, str) and isinstance(names, list) and all(isinstance(name, str) and name for name in names)
        for group, names in resources.items()
    )
    if not good:
        needed = 'a list of resources by API group, such as {"": [pods], apps: [deployments]}'
        return [problem("what members may write is not understood", shown(resources), needed, next_step)]
    return [
        problem("members could lift their limits or give themselves rights", f"writing {name}", NOT_GUARDED, next_step)
        for names in resources.values()
        for name in names
        if name in GUARDED
    ]


def abac_policy(
    complete: Sequence[Organisation],
    prefix: str,
    resources: Mapping[str, Sequence[str]],
    rules: Sequence[Mapping[str, Any]],
) -> str:
    """The policy file, one rule a line; empty where there is no rule."""
    own = [
        {"group": f"{prefix}{group}", "namespace": one["name"], "apiGroup": api_group, "resource": resource}
        for one in complete
        for group in one["members"]
        for api_group, names in resources.items()
        for resource in names
    ]
    head = {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy"}
    return "".join(f"{json.dumps({**head, 'spec': dict(rule)})}\n" for rule in [*own, *rules])


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names of the filters."""
        return {
            "abac_policy": abac_policy,
            "abac_resource_problems": abac_resource_problems,
            "abac_rule_problems": abac_rule_problems,
            "issuer_problems": issuer_problems,
            "namespace_problems": namespace_problems,
            "organisation_problems": organisation_problems,
            "organisations": organisations,
            "quota_problems": quota_problems,
        }
