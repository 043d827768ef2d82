"""What DEEPaaS calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from marshmallow import fields, validate

from anomaly_detector import model, traffic
from deep_module.about import about
from deep_module.arguments import Matrix, RefusedError
from deep_module.gpus import report
from deep_module.kept import Kept

MOST_LAGS = 24
SAMPLES = 1000
kept = Kept("anomaly_detector", model.train)


def get_metadata() -> dict[str, Any]:
    """What the module says of itself."""
    return about("anomaly_detector")


def _series(least: int, text: str) -> Matrix:
    columns = ", ".join(traffic.CHANNELS)
    width = len(traffic.CHANNELS)
    return Matrix(
        width,
        rows=(least, 20_000),
        bounds=(-1e12, 1e12),
        metadata={"description": f"{text} One row for each moment: {columns}."},
    )


def get_predict_args() -> dict[str, fields.Field]:
    """Arguments of a prediction."""
    return {
        "series": _series(MOST_LAGS + 1, "What was measured."),
        "sample": fields.Int(
            validate=validate.Range(0, SAMPLES - 1),
            metadata={"description": "Instead of series: number of a made-up one whose events are known."},
        ),
    }


def get_train_args() -> dict[str, fields.Field]:
    """Arguments of a training."""
    return {
        "series": _series(500, "What is normal; made up where it is not given."),
        "lags": fields.Int(
            load_default=3,
            validate=validate.Range(1, MOST_LAGS),
            metadata={"description": "How many rows a forecast looks back."},
        ),
        "false_alarms": fields.Float(
            load_default=0.002,
            validate=validate.Range(0.0001, 0.1),
            metadata={"description": "Part of normal rows that may raise an alarm."},
        ),
        "seed": fields.Int(
            load_default=1,
            validate=validate.Range(0, model.SAMPLE_SEED - 1),
            metadata={"description": "Where chance begins in what is made up."},
        ),
    }


def warm() -> None:
    """Train, so that the first prediction need not wait."""
    kept.get()


def predict(**arguments: Any) -> dict[str, Any]:
    """Say which rows are unusual: ``{anomalies: [{row, score, channel}], threshold, rows, truth?, computed_on, gpus}``.

    The first rows, from which the forecast of the next begins, cannot be judged: ``unjudged`` says how many.
    """
    series, number = arguments.get("series"), arguments.get("sample")
    if (series is None) == (number is None):
        found = "both" if series is not None else "neither"
        raise RefusedError("series", f"series or sample (found {found}, needed one of them)")
    trained = kept.get()
    rows, labels = (series or [], None) if number is None else model.sample(number)
    return {
        "anomalies": _anomalies(trained, rows),
        "threshold": round(trained.threshold, 4),
        "rows": len(rows),
        "unjudged": trained.lags,
        **({} if labels is None else {"truth": np.flatnonzero(labels).tolist()}),
        **report(),
    }


def _anomalies(trained: model.Trained, rows: Any) -> list[dict[str, Any]]:
    found, channels = model.scores(trained, rows), model.blamed(trained, rows)
    return [
        {"row": int(index) + trained.lags, "score": round(float(found[index]), 4), "channel": channels[index]}
        for index in np.flatnonzero(found > trained.threshold)
    ]


def train(**arguments: Any) -> dict[str, Any]:
    """Train anew; predictions use the new model from then on: ``{threshold, quality, rows, computed_on, gpus}``."""
    series = arguments.get("series")
    trained = model.train(**arguments)
    kept.put(trained)
    rows = model.ROWS if series is None else len(series)
    return {"threshold": round(trained.threshold, 4), "quality": trained.quality, "rows": rows, **report()}
