"""Kubernetes' own client: of a kubeconfig, and what a server says when it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def connected(settings: dict[str, Any] | Path | None, context: str | None = None) -> Any:
    """A client of the cluster of a kubeconfig, which is given as it is or as a file; ``None``: kubectl's own.

    Raises what the library does: nothing has been asked yet, except what the kubeconfig calls for a credential.
    """
    # Half a second that commands without a cluster need not wait.
    import kubernetes

    configuration = kubernetes.client.Configuration()
    # Untyped, as the whole library is.
    load: Any = kubernetes.config.load_kube_config_from_dict
    given: Any = settings
    if not isinstance(settings, dict):
        load, given = kubernetes.config.load_kube_config, str(settings) if settings else None
    load(given, context=context, client_configuration=configuration, persist_config=False)
    return kubernetes.client.ApiClient(configuration)


def said(refused: Any) -> str:
    """The message of an ``ApiException``."""
    try:
        return str(json.loads(refused.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(refused.reason)
