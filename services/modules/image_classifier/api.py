"""What DEEPaaS calls."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from deep_module.about import about
from deep_module.arguments import Matrix, RefusedError
from deep_module.gpus import report
from deep_module.kept import Kept
from image_classifier import model

kept = Kept("image_classifier", model.train)


def get_metadata() -> dict[str, Any]:
    """What the module says of itself."""
    return about("image_classifier")


def get_predict_args() -> dict[str, fields.Field]:
    """Arguments of a prediction."""
    numbers = fields.Int(validate=validate.Range(0, model.HELD_OUT - 1))
    return {
        "images": Matrix(
            model.PIXELS,
            rows=(1, 1000),
            bounds=(0, model.BRIGHTEST),
            metadata={"description": "Pictures of 8 x 8 pixels from 0 to 16, row after row: 64 numbers each."},
        ),
        "samples": fields.List(
            numbers,
            validate=validate.Length(1, model.HELD_OUT),
            metadata={"description": "Instead of images: numbers of pictures that no training has seen."},
        ),
    }


def get_train_args() -> dict[str, fields.Field]:
    """Arguments of a training."""
    return {
        "hidden_units": fields.Int(
            load_default=100, validate=validate.Range(8, 512), metadata={"description": "Size of the hidden layer."}
        ),
        "epochs": fields.Int(
            load_default=60, validate=validate.Range(1, 200), metadata={"description": "Rounds at most."}
        ),
        "learning_rate": fields.Float(
            load_default=0.003, validate=validate.Range(1e-5, 0.5), metadata={"description": "Step at the beginning."}
        ),
        "seed": fields.Int(
            load_default=0, validate=validate.Range(0, 2**31), metadata={"description": "Where chance begins."}
        ),
    }


def warm() -> None:
    """Train, so that the first prediction need not wait."""
    kept.get()


def predict(**arguments: Any) -> dict[str, Any]:
    """Say which digits pictures show: ``{digits, accuracy, truth?, computed_on, gpus}``."""
    images, samples = arguments.get("images"), arguments.get("samples")
    if (images is None) == (samples is None):
        found = "both" if images is not None else "neither"
        raise RefusedError("images", f"images or samples (found {found}, needed one of them)")
    trained = kept.get()
    if samples is None:
        return {"digits": model.recognise(trained, images or []), "accuracy": trained.accuracy, **report()}
    shown, truth = model.held_out(samples)
    return {"digits": model.recognise(trained, shown), "truth": truth, "accuracy": trained.accuracy, **report()}


def train(**arguments: Any) -> dict[str, Any]:
    """Train anew; predictions use the new network from then on: ``{accuracy, held_out, computed_on, gpus}``."""
    trained = model.train(**arguments)
    kept.put(trained)
    return {"accuracy": trained.accuracy, "held_out": model.HELD_OUT, **report()}
