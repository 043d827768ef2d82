"""What is asked of sites for a deployment comes from its template; one that is wrong is not tried again."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from deep_orchestrator import store
from deep_orchestrator.asks import ask
from deep_orchestrator.selection import Ask, Offer
from deep_orchestrator.steps import Limits, Steps
from deep_orchestrator.store import Deployment, Status
from testbed.paths import repo_root

TEMPLATES = repo_root() / "services" / "tosca" / "deep_tosca" / "templates"


def deployment(**parameters: object) -> Deployment:
    template = (TEMPLATES / "kubernetes-gpu.yaml").read_text(encoding="utf-8")
    return Deployment(
        issuer="https://iam.deep.test", subject="1", username="ada", organisation="deep", template=template,
        parameters=parameters, status=Status.CREATE_IN_PROGRESS,
    )  # fmt: skip


def test_everything_that_sites_are_chosen_by_is_in_the_ask() -> None:
    asked = ask(deployment(image="deep/digits:1", num_gpus=2, gpu_model="Tesla T4", num_cpus=1.5, mem_size="2 GiB"))
    assert asked == Ask(
        organisation="deep", gpus=2, gpu_model="Tesla T4", cpus=1.5, memory_mib=2048, image="deep/digits:1"
    )


def test_a_wrong_value_fails_the_deployment_with_its_name(tmp_path: Path) -> None:
    engine = store.engine(f"sqlite:///{tmp_path / 'db'}")
    store.Base.metadata.create_all(engine)
    offers = [Offer(site="first")]
    steps = Steps(engine, {}, lambda: offers, ask, Limits())
    with Session(engine) as session, session.begin():
        session.add(wrong := deployment(num_gpus=99))
        session.flush()
        uuid = wrong.uuid
    sites, reason = steps.choose(uuid)
    assert sites == []
    assert reason.startswith("input image is missing (found nothing, needed a line")
    with Session(engine) as session, session.begin():
        session.execute(sa.update(Deployment).values(parameters={"image": "deep/digits:1", "num_gpus": 99}))
    assert "num_gpus: wrong value (found 99, needed one between 1 and 8)" in steps.choose(uuid)[1]
    engine.dispose()
