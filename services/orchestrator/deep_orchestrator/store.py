"""Deployments and what was tried for each: the tables, in the same database as the durable workflows."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

import pysqlite3.dbapi2
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

Json = dict[str, Any]

# To the database, of one process; what waits for a site needs none meanwhile.
CONNECTIONS = 20
# Seconds (milliseconds the last) until a PostgreSQL that has vanished without a word counts as away.
GIVES_UP = {
    "connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}  # fmt: skip


class Status(enum.StrEnum):
    """States of a deployment, as INDIGO's orchestrator names them."""

    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    CREATE_COMPLETE = "CREATE_COMPLETE"
    CREATE_FAILED = "CREATE_FAILED"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    UPDATE_COMPLETE = "UPDATE_COMPLETE"
    UPDATE_FAILED = "UPDATE_FAILED"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    DELETE_COMPLETE = "DELETE_COMPLETE"
    DELETE_FAILED = "DELETE_FAILED"

    @property
    def in_progress(self) -> bool:
        """Whether somebody works on it."""
        return self.value.endswith("_IN_PROGRESS")


class Outcome(enum.StrEnum):
    """What became of one attempt at one site."""

    RUNNING = enum.auto()
    COMPLETE = enum.auto()
    FAILED = enum.auto()
    # Failed or deleted, and nothing of it is at the site any more.
    REMOVED = enum.auto()


def engine(url: str) -> sa.Engine:
    """The database of a URL of SQLAlchemy, for the tables here and those of the durable workflows.

    SQLite comes from a library of its own: what Debian 12 has (3.40) cannot tell milliseconds, which DBOS asks it for.
    """
    if sa.make_url(url).get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True, pool_size=CONNECTIONS, connect_args=GIVES_UP)
    made = sa.create_engine(url, module=pysqlite3.dbapi2, pool_size=CONNECTIONS)

    @sa.event.listens_for(made, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The first change of a transaction waits for its turn to write; readers wait for nobody.
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return made


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(sa.TypeDecorator[datetime]):  # pylint: disable=abstract-method,too-many-ancestors # SQLAlchemy's way
    """A time in UTC that says so, also from SQLite, which keeps no zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 # as SQLAlchemy calls it
        """What was read, with its zone."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Of every table of the orchestrator."""

    type_annotation_map: ClassVar = {datetime: UtcDateTime, Json: sa.JSON, list[Json]: sa.JSON}


class Deployment(Base):
    """What somebody asked for."""

    __tablename__ = "deployments"

    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True, default=lambda: str(uuid4()))
    issuer: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    username: Mapped[str]
    organisation: Mapped[str] = mapped_column(index=True)
    template: Mapped[str] = mapped_column(sa.Text)
    parameters: Mapped[Json] = mapped_column(default=dict)
    callback: Mapped[str | None]
    max_providers_retry: Mapped[int | None]
    keep_last_attempt: Mapped[bool] = mapped_column(default=False)
    status: Mapped[Status] = mapped_column(sa.Enum(Status, native_enum=False), index=True)
    status_reason: Mapped[str | None] = mapped_column(sa.Text)
    # How often something was asked of it: each time has a workflow of its own.
    operation: Mapped[int] = mapped_column(default=1)
    # Why each site was chosen or rejected, when it was looked at last.
    selection: Mapped[list[Json]] = mapped_column(default=list)
    outputs: Mapped[Json] = mapped_column(default=dict)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    # Of two orders at the same time one is refused, and an operation that is over does not settle the next one.
    __mapper_args__ = {"version_id_col": operation, "version_id_generator": False}  # noqa: RUF012 # not ours to annotate
    attempts: Mapped[list[Attempt]] = relationship(order_by="Attempt.started", cascade="all, delete-orphan")


class Attempt(Base):
    """The try at one site: a deployment is made once, and no site is tried twice for it."""

    __tablename__ = "attempts"

    deployment: Mapped[str] = mapped_column(sa.ForeignKey("deployments.uuid"), primary_key=True)
    site: Mapped[str] = mapped_column(primary_key=True)
    infrastructure: Mapped[str | None]
    outcome: Mapped[Outcome] = mapped_column(sa.Enum(Outcome, native_enum=False), index=True)
    reason: Mapped[str | None] = mapped_column(sa.Text)
    started: Mapped[datetime] = mapped_column(default=now)
    ended: Mapped[datetime | None]


class Worker(Base):
    """A process that works on deployments, and when it said last that it lives."""

    __tablename__ = "workers"

    executor: Mapped[str] = mapped_column(primary_key=True)
    seen: Mapped[datetime]


def get(session: Session, uuid: str) -> Deployment:
    """A deployment that there is; raises LookupError where it is not."""
    found = session.get(Deployment, uuid)
    if found is None:
        raise LookupError(f"no deployment {uuid}")
    return found


def settle(
    session: Session,
    uuid: str,
    operation: int,
    status: Status,
    *,
    outputs: Json | None = None,
    reason: str | None = None,
) -> None:
    """Give a deployment its state and its outputs, if it has new ones, unless a newer operation has taken over."""
    deployment = get(session, uuid)
    if deployment.operation == operation:
        deployment.status, deployment.status_reason = status, reason
        if outputs is not None:
            deployment.outputs = outputs


def recent_failures(session: Session, window: timedelta) -> dict[str, int]:
    """How many attempts failed at each site of late, of deployments that did run elsewhere: others may be at fault."""
    elsewhere = sa.orm.aliased(Attempt)
    ran = sa.exists().where(elsewhere.deployment == Attempt.deployment, elsewhere.infrastructure.is_not(None))
    failed = sa.select(Attempt.site, sa.func.count()).where(
        Attempt.reason.is_not(None), Attempt.ended >= now() - window, ran
    )
    return dict(session.execute(failed.group_by(Attempt.site)).all())
