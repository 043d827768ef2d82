"""What the unit tests share."""

from __future__ import annotations

from testbed.rendering import load_plugins

# Modules of the collection import each other by its name, which only Ansible's loader knows.
load_plugins()
