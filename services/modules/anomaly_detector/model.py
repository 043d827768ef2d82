"""What is expected next is compared with what comes: a linear forecast from the rows before, and how all series err."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from anomaly_detector import traffic

ROWS = 4000
SAMPLE_ROWS = 600
# Far from every number that somebody trains with.
SAMPLE_SEED = 5_000
# The last part of what is trained on sets the threshold.
CALIBRATION = 0.3


@dataclass(frozen=True)
class Trained:
    """A forecast from ``lags`` rows, the inverse covariance of its errors, and the score at which an alarm begins."""

    lags: int
    mean: Any
    scale: Any
    forecast: Ridge
    precision: Any
    threshold: float
    quality: dict[str, float]


def train(
    series: list[list[float]] | None = None, lags: int = 3, false_alarms: float = 0.002, seed: int = 1
) -> Trained:
    """Train on rows without events, made up where none are given.

    ``false_alarms`` is the part of normal rows that may raise one. ``quality`` is measured on made-up rows, so it is
    there only for a model that was trained on such: areas under the ROC curve, of it and of distances from the mean.
    """
    rows = np.asarray(series) if series is not None else traffic.normal(ROWS, seed)
    cut = int(len(rows) * (1 - CALIBRATION))
    mean, scale = rows[:cut].mean(axis=0), np.maximum(rows[:cut].std(axis=0), 1e-9)
    scaled = (rows - mean) / scale
    before, after = _windows(scaled[:cut], lags)
    forecast = Ridge(alpha=1.0).fit(before, after)
    errors = after - forecast.predict(before)
    width = errors.shape[1]
    precision = np.linalg.inv(np.cov(errors, rowvar=False) + 1e-6 * np.eye(width))
    fitted = Trained(lags, mean, scale, forecast, precision, 0.0, {})
    threshold = float(np.quantile(scores(fitted, rows[cut:]), 1 - false_alarms))
    quality = _quality(fitted) if series is None else {}
    return Trained(lags, mean, scale, forecast, precision, threshold, quality)


def scores(trained: Trained, rows: Any) -> Any:
    """How far each row from ``lags`` on is from what was expected (Mahalanobis distance of the error)."""
    errors = _errors(trained, np.asarray(rows))
    return np.sqrt(np.einsum("ij,jk,ik->i", errors, trained.precision, errors))


def blamed(trained: Trained, rows: Any) -> list[str]:
    """For each row from ``lags`` on the series whose error those of the others explain least."""
    unexplained = np.abs(_errors(trained, np.asarray(rows)) @ trained.precision) / np.sqrt(np.diag(trained.precision))
    return [traffic.CHANNELS[index] for index in unexplained.argmax(axis=1)]


def sample(number: int) -> tuple[Any, Any]:
    """Made-up rows with events that no training has seen, and which rows those are."""
    return traffic.with_events(SAMPLE_ROWS, SAMPLE_SEED + number)


def distances(rows: Any, mean: Any, scale: Any) -> Any:
    """What an alarm without any model looks at: how far the worst series is from its mean, in standard deviations."""
    return (np.abs(np.asarray(rows) - mean) / scale).max(axis=1)


def _errors(trained: Trained, rows: Any) -> Any:
    before, after = _windows((rows - trained.mean) / trained.scale, trained.lags)
    return after - trained.forecast.predict(before)


def _windows(rows: Any, lags: int) -> tuple[Any, Any]:
    """For each row from ``lags`` on: the rows before it, beside each other, and itself."""
    before = np.hstack([rows[lag : len(rows) - lags + lag] for lag in range(lags)])
    return before, rows[lags:]


def _quality(trained: Trained) -> dict[str, float]:
    rows, labels = sample(0)
    kept = labels[trained.lags :]
    plain = distances(rows[trained.lags :], trained.mean, trained.scale)
    return {
        "auc": round(float(roc_auc_score(kept, scores(trained, rows))), 4),
        "auc_of_distances": round(float(roc_auc_score(kept, plain)), 4),
    }
