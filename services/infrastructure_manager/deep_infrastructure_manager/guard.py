"""What IM 2.0.0 lacks for a site where not everybody is trusted, put around the parts of it that decide.

- The IAM's own description is fetched without looking at its certificate: whoever answers in the IAM's name could say
  that every token is good.
- A token for several services (``aud`` is a list) breaks it.
- Somebody has to be in all of the groups that are named, not in one of them.
- Whoever comes in can have it send requests to any address, as that of a cloud, of an import or of a script in a
  template; for templates even without coming in.
- What was destroyed stays in the database, with the token that made it.
- Kubernetes writes memory in bytes without a unit, which IM takes for an error at each look at a container.
- Why a container of Kubernetes does not run is not told: it is pending, for ever.
- What Kubernetes says against a container's service or ingress is in the log alone.
- What an ingress publishes with TLS answers without it on a port of every node as well.
"""

from __future__ import annotations

import functools
import threading
from typing import Annotated, Any, NoReturn

import IM
import IM.tosca.Tosca
from fastapi import Depends, HTTPException, Request
from IM.auth import Authentication
from IM.config import Config
from IM.connectors.CloudConnector import CloudConnector
from IM.connectors.Kubernetes import KubernetesCloudConnector
from IM.db import DataBase
from IM.InfrastructureList import InfrastructureList
from IM.InfrastructureManager import InfrastructureManager, InvaliddUserException
from IM.openid.JWT import JWT
from IM.openid.OpenIDClient import OpenIDClient
from IM.rest.REST import app
from IM.rest.routers import get_auth_header, parse_deployment, run_blocking
from IM.VirtualMachine import VirtualMachine
from toscaparser.imports import ImportsLoader

from deep_infrastructure_manager.settings import Settings, SettingsError, address

WRITTEN_FOR = "2.0.0"
OWN_TYPE = "InfrastructureManager"
# In the same transaction as what marks a row as deleted.
PURGE = """CREATE TRIGGER IF NOT EXISTS purge AFTER INSERT ON inf_list WHEN NEW.deleted = 1
BEGIN DELETE FROM inf_list WHERE id = NEW.id; END"""
# What is said of a container that does not run, in a line of the infrastructure's messages: a word and more words.
NOT_RUNNING = "Container does not run: "
LONGEST_REASON = 400
PURGE_NOW = "DELETE FROM inf_list WHERE deleted = 1"


def apply(settings: Settings) -> None:
    """Put everything in place; raises ``SettingsError`` for another IM than this was written for, or no database."""
    if IM.__version__ != WRITTEN_FOR:
        raise SettingsError(f"another Infrastructure Manager (found {IM.__version__}, needed {WRITTEN_FOR})")
    verify_the_issuer()
    take_tokens_for_several_services()
    ask_for_one_group(settings.groups)
    go_to_named_sites_only(settings.sites)
    fetch_nothing_for_templates(settings.tosca_types)
    ask_who_before_reading()
    forget_what_is_destroyed()
    read_plain_bytes()
    say_why_containers_do_not_run()
    publish_once()


def verify_the_issuer() -> None:
    """Have the certificate of an issuer checked before anything that it says is believed."""
    ask = OpenIDClient.get_openid_configuration

    def verified(iss: str, **_: Any) -> Any:
        return ask(iss.rstrip("/"), verify_ssl=True)

    OpenIDClient.get_openid_configuration = staticmethod(verified)


def take_tokens_for_several_services() -> None:
    """Show a list of audiences as IM reads it: with commas between."""
    read = JWT.get_info

    def with_audiences(token: str) -> dict[str, Any]:
        claims: dict[str, Any] = read(token)
        if isinstance(claims.get("aud"), list):
            claims["aud"] = ",".join(map(str, claims["aud"]))
        return claims

    JWT.get_info = staticmethod(with_audiences)


def ask_for_one_group(groups: frozenset[str]) -> None:
    """Let in who is in one of ``groups``, after everything else about the token was found right."""
    check = InfrastructureManager.check_oidc_token

    def checked(im_auth: dict[str, Any], admin_users: Any = None) -> None:
        check(im_auth, admin_users)
        found = JWT.get_info(im_auth["token"]).get(Config.OIDC_GROUPS_CLAIM)
        if not isinstance(found, list) or not groups.intersection(map(str, found)):
            raise InvaliddUserException(
                f"None of your groups may use this (found {found or 'none'}, needed one of {', '.join(sorted(groups))})"
            )

    InfrastructureManager.check_oidc_token = staticmethod(checked)


def go_to_named_sites_only(sites: frozenset[tuple[str, str]]) -> None:
    """Refuse credentials for anything but ``sites``: they would be sent there."""
    check = InfrastructureManager.check_auth_data

    def checked(auth: Authentication) -> Authentication:
        for item in auth.auth_list:
            site = (str(item.get("type")), address(str(item.get("host", ""))))
            if site[0] != OWN_TYPE and site not in sites:
                known = ", ".join(" ".join(one).strip() for one in sorted(sites)) or "none"
                raise InvaliddUserException(
                    f"No site of this Infrastructure Manager (found {' '.join(site).strip()}, needed one of {known})"
                )
        return check(auth)

    InfrastructureManager.check_auth_data = staticmethod(checked)


class _NoDownloads:
    """In place of the session that fetches what a template names."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def get(self, place: str, **_: Any) -> NoReturn:
        """Refuse."""
        raise ValueError(f"scripts and models are not fetched (found {place}, needed none)")


def fetch_nothing_for_templates(types: str) -> None:
    """Refuse imports but that of the site's own ``types``, and scripts from elsewhere."""
    load = ImportsLoader._load_import_template

    def own_types_only(self: ImportsLoader, name: str | None, wanted: Any) -> Any:
        plain = {"file": wanted} if isinstance(wanted, str) else wanted
        if not types or plain != {"file": types}:
            raise ValueError(f"imports are not fetched (found {wanted}, needed {types or 'none'})")
        return load(self, name, wanted)

    ImportsLoader._load_import_template = own_types_only
    IM.tosca.Tosca.requests_cache.CachedSession = _NoDownloads


async def _known_people_first(request: Request, auth: Annotated[Authentication, Depends(get_auth_header)]) -> Any:
    """What the request wants deployed, once it is known who asks."""
    try:
        await run_blocking(InfrastructureManager.check_auth_data, auth)
    except InvaliddUserException as refused:
        raise HTTPException(401, str(refused)) from refused
    except Exception as broken:
        # As IM answers to a token that is none.
        raise HTTPException(400, str(broken)) from broken
    return await parse_deployment(request)


def ask_who_before_reading() -> None:
    """Read templates of people only who are let in."""
    app.dependency_overrides[parse_deployment] = _known_people_first


def forget_what_is_destroyed() -> None:
    """Have infrastructures leave the database when they are destroyed, and nothing of them in its file."""
    connect = DataBase._connect_sqlite

    @functools.wraps(connect)
    def overwriting(self: DataBase, filename: str) -> bool:
        connected = bool(connect(self, filename))
        self.connection.execute("PRAGMA secure_delete = ON")
        return connected

    DataBase._connect_sqlite = overwriting
    save = InfrastructureList._save_data_to_db
    one_at_a_time = threading.Lock()

    def as_it_is_now(*what: Any) -> Any:
        # A thread that had read an infrastructure before it was destroyed would write it, and its token, once more.
        with one_at_a_time:
            return save(*what)

    InfrastructureList._save_data_to_db = staticmethod(as_it_is_now)
    database = DataBase(Config.DATA_DB)
    if not InfrastructureList.init_table() or not database.connect():
        raise SettingsError(f"[im] DATA_DB (found {Config.DATA_DB}, needed a database that can be written)")
    try:
        database.execute(PURGE)
        database.execute(PURGE_NOW)
    finally:
        database.close()


def read_plain_bytes() -> None:
    """Take memory without a unit for bytes, as Kubernetes means it."""
    convert = CloudConnector.convert_memory_unit

    def converted(memory: Any, unit: str = "M") -> Any:
        return convert(f"{memory}B" if str(memory).isdigit() else memory, unit)

    CloudConnector.convert_memory_unit = staticmethod(converted)


def say_why_containers_do_not_run() -> None:
    """Note with each look at a container of Kubernetes why it does not run, or what of it was not made."""
    launch, ask = KubernetesCloudConnector.launch, KubernetesCloudConnector._get_pod

    def remembering(self: KubernetesCloudConnector, *what: Any) -> list[tuple[bool, Any]]:
        # Of this try alone: what an earlier one could not make may be there now.
        self.error_messages = ""
        made: list[tuple[bool, Any]] = launch(self, *what)
        for launched, vm in made:
            if launched:
                vm.not_made = self.error_messages
        return made

    def noted(self: KubernetesCloudConnector, vm: VirtualMachine, auth: Any) -> tuple[bool, Any, Any]:
        found: tuple[bool, Any, Any] = ask(self, vm, auth)
        if found[0]:
            why = why_not_running(found[2].get("status", {}))
            vm.error_msg = NOT_RUNNING + why if why else getattr(vm, "not_made", None)
        return found

    KubernetesCloudConnector.launch = remembering
    KubernetesCloudConnector._get_pod = noted


def why_not_running(status: dict[str, Any]) -> str:
    """Why a pod of this status does not run, in a line, such as ``ImagePullBackOff: ...``; empty where it may soon."""
    for one in status.get("containerStatuses", []):
        state = one.get("state", {})
        if stopped := state.get("terminated"):
            return _in_a_line(stopped, f"it ended with {stopped.get('exitCode')}")
        waiting = state.get("waiting", {})
        if waiting.get("reason", "ContainerCreating") not in {"ContainerCreating", "PodInitializing"}:
            return _in_a_line(waiting)
    for one in status.get("conditions", []):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _in_a_line(one)
    return ""


def _in_a_line(said: dict[str, Any], otherwise: str = "no more is said") -> str:
    words = " ".join(str(said.get("message") or otherwise).split())
    if len(words) > LONGEST_REASON:
        # What it comes to is at the end.
        words = f"{words[: LONGEST_REASON // 2]} ... {words[-LONGEST_REASON // 2 :]}"
    return f"{said.get('reason', 'Unknown')}: {words}"


def publish_once() -> None:
    """Give a container no port of the nodes where the one port that it publishes has a name at the ingress."""
    make = KubernetesCloudConnector.create_service_data

    def through_the_ingress(  # pylint: disable=too-many-arguments,too-many-positional-arguments # as IM calls it
        self: KubernetesCloudConnector,
        namespace: str,
        name: str,
        ports: Any,
        public: Any,
        auth: Any,
        vm: VirtualMachine,
    ) -> None:
        system = vm.info.systems[0]
        named = system.getValue("net_interface.0.dns_name") or system.getValue("net_interface.0.dns.0.name")
        make(self, namespace, name, ports, None if named and len(ports) == 1 else public, auth, vm)

    KubernetesCloudConnector.create_service_data = through_the_ingress
