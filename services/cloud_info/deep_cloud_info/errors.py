"""What can go wrong, each with a text for whoever runs the site."""

from __future__ import annotations


class CloudInfoError(Exception):
    """Nothing can be published. ``missing``: rights that the cluster does not give, as VERB RESOURCE."""

    def __init__(self, what: str, *, found: str, needed: str, next_step: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(f"{what} (found {found}; needed {needed}). Next: {next_step}")
        self.missing = missing


class ConfigurationError(CloudInfoError):
    """The configuration cannot be used."""
