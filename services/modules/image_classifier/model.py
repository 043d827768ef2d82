"""A multilayer perceptron for pictures of 8 x 8 pixels, trained on the digits that scikit-learn brings along."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

PIXELS = 64
BRIGHTEST = 16.0
# A quarter of the 1797 pictures, which no training ever sees.
HELD_OUT = 450


@dataclass(frozen=True)
class Trained:
    """A network, and how many of the pictures held out it gets right (0 to 1)."""

    network: MLPClassifier
    accuracy: float


@cache
def pictures() -> tuple[Any, Any, Any, Any]:
    """Pictures to train on, pictures held out, and the digits of both."""
    data, digits = load_digits(return_X_y=True)
    return tuple(train_test_split(data / BRIGHTEST, digits, test_size=HELD_OUT, stratify=digits, random_state=0))


def train(hidden_units: int = 100, epochs: int = 60, learning_rate: float = 0.003, seed: int = 0) -> Trained:
    """Train for ``epochs`` rounds at most, and count on the pictures held out."""
    seen, held_out, digits, truth = pictures()
    network = MLPClassifier((hidden_units,), max_iter=epochs, learning_rate_init=learning_rate, random_state=seed)
    with warnings.catch_warnings():
        # Whoever asks for few epochs gets few.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(seen, digits)
    return Trained(network, float(network.score(held_out, truth)))


def held_out(numbers: list[int]) -> tuple[list[list[float]], list[int]]:
    """Pictures held out, by their number, and what they show."""
    _, data, _, truth = pictures()
    return (data[numbers] * BRIGHTEST).tolist(), truth[numbers].tolist()


def recognise(trained: Trained, images: list[list[float]]) -> list[dict[str, Any]]:
    """The digit of each picture, with how probable the network thinks it is."""
    probabilities = trained.network.predict_proba(np.asarray(images) / BRIGHTEST)
    best = probabilities.argmax(axis=1)
    return [
        {"label": int(digit), "probability": round(float(row[digit]), 4)}
        for digit, row in zip(best, probabilities, strict=True)
    ]
