"""DEEPaaS as the images start it: ``python3 -m deep_module.serve``.

What it is built on imports ``distutils``, which Python 3.12 has no longer. Setuptools brings it, once it is imported:
first here, and in the workers, which import this module too.
"""

from __future__ import annotations

import setuptools  # noqa: F401  # pylint: disable=unused-import  # first, for distutils
from deepaas.cmd.run import main

if __name__ == "__main__":
    main()
