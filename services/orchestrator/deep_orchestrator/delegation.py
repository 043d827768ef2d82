"""Acting for people at sites: their tokens are exchanged for ones that sites take, and renewed as long as needed.

Somebody's token lives for minutes, a deployment for days. With each order the sender's token is exchanged for a refresh
token of this service (RFC 8693), which is kept encrypted, one for each person: the newest serves all that is theirs.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy.orm import Mapped, Session, mapped_column

from deep_orchestrator import settings, store
from deep_orchestrator.errors import RefusedError
from deep_orchestrator.identity import Issuer, Person
from deep_orchestrator.sites import SiteError
from deep_orchestrator.store import Deployment, Status

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # nosec B105 # a name
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"  # nosec B105 # a name
# A token that is over in less is renewed before it is used.
LEAST_LEFT = timedelta(seconds=30)


class Grant(store.Base):
    """What a person has given this service; tokens are encrypted."""

    __tablename__ = "grants"

    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str]
    refresh: Mapped[str] = mapped_column(sa.Text)
    access: Mapped[str] = mapped_column(sa.Text)
    until: Mapped[datetime]


@dataclass(frozen=True)
class Given:
    """Tokens of a person for this service to use."""

    refresh: str
    access: str
    until: datetime


class Delegate:
    """Acts for people."""

    def __init__(self, engine: sa.Engine, issuer: Issuer, delegation: settings.Delegation) -> None:
        self._engine, self._issuer, self._delegation = engine, issuer, delegation
        self._fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(delegation.secret.encode()).digest()))
        # The issuer takes a refresh token once. Rows are locked too, but not by SQLite.
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def exchange(self, person: Person) -> Given:
        """Tokens for a person's own; raises RefusedError: 403 where the issuer refuses, 503 where it is away."""
        form = {
            "grant_type": GRANT,
            "subject_token": person.token,
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": REFRESH_TOKEN,
        }
        try:
            answer = self._ask(form)
        except httpx.HTTPError:
            raise RefusedError(503, "the identity provider does not answer, try again in a moment") from None
        if answer.is_error:
            said = refusal(answer)
            raise RefusedError(
                403, f"the identity provider does not let the orchestrator act for {person.username}: {said}"
            )
        return given(answer.json(), "")

    def keep(self, session: Session, person: Person, tokens: Given) -> None:
        """Note what a person has given, in the transaction of an order."""
        session.merge(
            Grant(
                issuer=person.issuer,
                subject=person.subject,
                username=person.username,
                refresh=self._encrypted(tokens.refresh),
                access=self._encrypted(tokens.access),
                until=tokens.until,
            )
        )

    def token(self, uuid: str) -> str:
        """A token of a deployment's owner that sites take.

        Raises SiteError where the owner's login has ended, and httpx.HTTPError where the issuer is away.
        """
        with Session(self._engine) as session:
            deployment = store.get(session, uuid)
            who = (deployment.issuer, deployment.subject)
        with self._locks.setdefault(who, threading.Lock()), Session(self._engine) as session, session.begin():
            grant = session.get(Grant, who, with_for_update=True)
            if grant is None:
                raise SiteError(f"{deployment.username} has not let the orchestrator act. Next: order it again")
            if grant.until - LEAST_LEFT < store.now():
                self._renew(grant)
            return self._decrypted(grant.access)

    def _renew(self, grant: Grant) -> None:
        refresh = self._decrypted(grant.refresh)
        answer = self._ask({"grant_type": "refresh_token", "refresh_token": refresh})
        if answer.is_server_error:
            answer.raise_for_status()
        if answer.is_error:
            raise SiteError(
                f"the login of {grant.username} has ended ({refusal(answer)}). Next: log in and order it again"
            )
        new = given(answer.json(), refresh)
        grant.refresh, grant.access, grant.until = self._encrypted(new.refresh), self._encrypted(new.access), new.until

    def forget(self) -> None:
        """Remove what people have given who have no deployment any more."""
        theirs = sa.exists().where(
            Deployment.issuer == Grant.issuer,
            Deployment.subject == Grant.subject,
            Deployment.status != Status.DELETE_COMPLETE,
        )
        with Session(self._engine) as session, session.begin():
            session.execute(sa.delete(Grant).where(~theirs))

    def _ask(self, form: dict[str, str]) -> httpx.Response:
        return self._issuer.http.post(
            self._issuer.endpoint("token"),
            data={**form, "scope": " ".join(self._delegation.scopes)},
            auth=(self._delegation.client_id, self._delegation.client_secret),
        )

    def _encrypted(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def _decrypted(self, text: str) -> str:
        try:
            return self._fernet.decrypt(text.encode()).decode()
        except InvalidToken:
            raise SiteError("the tokens were kept with another secret of the site. Next: order it again") from None


def given(answer: dict[str, Any], before: str) -> Given:
    """Tokens of an answer. ``before``: the refresh token that stays where the issuer gives no new one."""
    until = store.now() + timedelta(seconds=float(answer.get("expires_in", 60)))
    return Given(str(answer.get("refresh_token") or before), str(answer["access_token"]), until)


def refusal(answer: httpx.Response) -> str:
    """Why an issuer refuses, in its words (RFC 6749, 5.2)."""
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict) or "error" not in said:
        return f"HTTP status {answer.status_code}"
    return f"{said['error']}: {said['error_description']}" if said.get("error_description") else str(said["error"])
