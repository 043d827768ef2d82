"""The trained model that the processes of a module share: whoever trains replaces it, the others take it from there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import joblib

from deep_module.shared import folder

Model = TypeVar("Model")


class Kept(Generic[Model]):
    """The model ``name``, made by ``train`` where there is none yet."""

    def __init__(self, name: str, train: Callable[[], Model]) -> None:
        self._file, self._train = folder() / f"{name}.joblib", train
        self._seen: tuple[int, int] | None = None
        self._model: Model | None = None

    def get(self) -> Model:
        """The model of now; reads it again only when another process has replaced it."""
        if not self._file.exists():
            self._first()
        status = self._file.stat()
        seen = (status.st_ino, status.st_mtime_ns)
        if self._model is None or seen != self._seen:
            # The folder is the module's own: nobody else's pickle gets there.
            self._model, self._seen = cast(Any, joblib.load(self._file)), seen
        return self._model

    def put(self, model: Model) -> None:
        """Replace it in one step."""
        new = self._file.with_suffix(f".{os.getpid()}")
        joblib.dump(model, new)
        new.replace(self._file)

    def _first(self) -> None:
        """Train, unless another process does so already: then wait for it."""
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._file.exists():
                self.put(self._train())
