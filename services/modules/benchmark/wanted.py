"""What a training is asked to measure: a specification, or DEEP's arguments and those of ``deep bench run``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pydantic
from marshmallow import ValidationError, fields, validate

from pipelines.benchmark import gpu, workload
from pipelines.benchmark.machine import fingerprint
from pipelines.benchmark.model import Plan, Specification
from sqa import wrong
from testbed.errors import DeepError

NO_DATA = "the data sets were on storage of DEEP that was switched off in 2023"
# What DEEP's module takes and this one has in one way only: that value, and why no other.
FIXED: dict[str, tuple[str | bool | None, str]] = {
    "flavor": ("synthetic", NO_DATA),
    "dataset": ("synthetic_data", NO_DATA),
    "evaluation": (False, "nothing is learnt that could be evaluated"),
    "batch_size_per_device": (None, "a batch is part of the workload: other batches are not comparable"),
    "num_epochs": (None, "calls are repeated until they are steady, whatever they learn: see repeats"),
    "optimizer": (None, "the optimizer is part of the workload"),
    "weight_decay": (None, "the optimizer is part of the workload"),
}
# Arguments that a plan has under the same name.
PLAN = ("threads", "repeats", "processes", "limit", "seed", "label")
LONGEST = 24 * 3600


class Fixed(fields.Field):
    """An argument with a single value, which is also taken as text; any other is refused with the reason."""

    def __init__(self, value: str | bool | None, reason: str) -> None:
        needed = "nothing" if value is None else json.dumps(value)
        super().__init__(allow_none=True, metadata={"description": f"Of DEEP's module; here {needed}: {reason}."})
        self._value, self._reason, self._needed = value, reason, needed

    def _deserialize(self, value: Any, *_args: Any, **_more: Any) -> Any:
        if str(value).lower() != str(self._value).lower():
            raise ValidationError(f"{self._reason} (found {str(value)[:40]!r}, needed {self._needed})")
        return self._value


class Ordered(fields.Field):
    """A specification as a JSON object, or as its text."""

    def _deserialize(self, value: Any, *_args: Any, **_more: Any) -> dict[str, Any]:
        try:
            found = Specification.model_validate(json.loads(value) if isinstance(value, str) else value)
            workload.chosen(found.workloads, found.plan.device)
        except pydantic.ValidationError as refused:
            raise ValidationError(wrong.explained(refused, Specification)) from refused
        except (json.JSONDecodeError, RecursionError) as refused:
            raise ValidationError("not JSON (needed an object)") from refused
        except DeepError as refused:
            raise ValidationError(str(refused)) from refused
        if found.plan.device == "gpu":
            real_gpus(found.plan.gpus)
        return found.model_dump(mode="json")


def real_gpus(number: int) -> None:
    """Raise ``ValidationError`` where so many GPUs cannot be measured: no figure is made by a simulated one."""
    if not number:
        return
    machine = fingerprint()
    try:
        gpu.require_real(machine)
    except DeepError as refused:
        raise ValidationError(str(refused)) from refused
    if number > len(machine.gpus):
        raise ValidationError(f"too many GPUs (found {len(machine.gpus)}, needed {number})")


def arguments() -> dict[str, fields.Field]:
    """The arguments of a training as DEEPaaS checks and shows them."""
    names = sorted({name for there in workload.WORKLOADS.values() for name in there} | set(workload.NETWORKS))
    known = validate.OneOf(names, error="no such workload (found {input}, needed one of {choices})")
    return {
        "num_gpus": _whole(0, 64, "GPUs to measure; none: the processors.", more=real_gpus),
        "model": fields.Str(
            validate=known,
            metadata={"description": "One workload, or a network of DEEP's to train. Default: all of its networks."},
        ),
        "workloads": fields.List(fields.Str(validate=known), metadata={"description": "Several of these."}),
        "use_fp16": fields.Bool(
            load_default=False,
            metadata={"description": "Whether networks of DEEP's are trained in mixed precision, on GPUs."},
        ),
        "repeats": _whole(1, 10_000, f"Steady calls in each process, at least. {_default('repeats')}"),
        "processes": _whole(1, 100, f"Fresh processes for each workload. {_default('processes')}"),
        "threads": _whole(1, 4096, "Default: as many as the module may use."),
        "limit": fields.Float(
            validate=validate.Range(1, LONGEST),
            metadata={"description": f"Seconds within which a process has to be steady. {_default('limit')}"},
        ),
        "seed": _whole(0, 2**31 - 1, "Where chance begins in the statistics."),
        "label": fields.Str(
            validate=validate.Length(max=200), metadata={"description": "A word to find the run by, such as a version."}
        ),
        "timeout": fields.Float(
            load_default=3600.0,
            validate=validate.Range(1, LONGEST),
            metadata={"description": "Seconds after which the measurement is given up."},
        ),
        "specification": Ordered(
            metadata={"description": "Instead of all others but timeout: the document that 'deep bench' sends."}
        ),
        **{name: Fixed(value, reason) for name, (value, reason) in FIXED.items()},
    }


def specification(given: Mapping[str, Any]) -> Specification:
    """What the arguments ask for; raises ``DeepError`` for those that do not go together."""
    said = {name: value for name, value in given.items() if value is not None and name not in FIXED}
    said.pop("timeout", None)
    whole, mixed = said.pop("specification", None), said.pop("use_fp16", False)
    if whole is not None:
        others = sorted(said) + ["use_fp16"] * mixed
        if others:
            raise DeepError("a specification says everything", found=", ".join(others), needed="no other arguments")
        return Specification.model_validate(whole)
    gpus, model = said.get("num_gpus", 0), said.get("model")
    names = [*([model] if model else []), *said.get("workloads", [])] or workload.NETWORKS
    if mixed and not set(names) <= set(workload.NETWORKS):
        networks = f"some of {', '.join(workload.NETWORKS)}"
        raise DeepError("use_fp16 is about DEEP's networks", found=", ".join(names), needed=networks)
    names = [workload.by_network(name, "gpu" if gpus else "cpu", mixed=mixed) for name in names]
    device = {"device": "gpu", "gpus": gpus} if gpus else {}
    plan = {name: said[name] for name in PLAN if name in said} | device
    found = Specification.model_validate({"workloads": names, "plan": plan})
    workload.chosen(found.workloads, found.plan.device)
    return found


def _default(name: str) -> str:
    return f"Default: {getattr(Plan(), name):g}."


def _whole(least: int, most: int, text: str, more: Any = None) -> fields.Field:
    checks = [validate.Range(least, most), *([more] if more else [])]
    return fields.Int(validate=checks, metadata={"description": text})
