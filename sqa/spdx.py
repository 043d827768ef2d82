"""Licences by their SPDX identifiers: how people write their names, and what their texts are known by."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqa.contents import words


@dataclass(frozen=True)
class Licence:
    """``written``: its name as people write it. ``passages``: of its text, to the end. ``least``: how many words."""

    written: str
    passages: tuple[str, ...]
    least: int


# A text that has the passages of several is the first of them.
LICENCES: dict[str, Licence] = {
    "Apache-2.0": Licence(
        r"apache.*2", ("apache license version 2.0, january 2004", "end of terms and conditions"), 1300
    ),
    "MIT": Licence(
        r"^(the )?mit\b",
        ("permission is hereby granted, free of charge, to any person", 'the software is provided "as is"'), 130,
    ),
    "BSD-3-Clause": Licence(
        r"bsd.?3|new bsd",
        ("redistribution and use in source", "neither the name", "possibility of such damage"), 170,
    ),
    "BSD-2-Clause": Licence(
        r"bsd.?2|simplified bsd", ("redistribution and use in source", "possibility of such damage"), 130
    ),
    "ISC": Licence(r"^isc\b", ("permission to use, copy, modify, and", "the author disclaims all warranties"), 90),
    "MPL-2.0": Licence(
        r"mpl.*2|mozilla.*2", ("mozilla public license version 2.0", "incompatible with secondary licenses"), 2000
    ),
    "EPL-2.0": Licence(r"epl.*2|eclipse.*2", ("eclipse public license - v 2.0", "secondary licenses"), 1500),
    "EUPL-1.2": Licence(r"eupl", ("european union public licence v. 1.2", "appendix"), 1800),
    "AGPL-3.0": Licence(
        r"agpl|affero", ("gnu affero general public license version 3", "end of terms and conditions"), 4500
    ),
    "LGPL-3.0": Licence(
        r"lgpl.*3", ("gnu lesser general public license version 3", "permanent authorization for you to choose"), 800
    ),
    "LGPL-2.1": Licence(
        r"lgpl.*2", ("gnu lesser general public license version 2.1", "end of terms and conditions"), 3500
    ),
    "GPL-3.0": Licence(r"gpl.*3", ("gnu general public license version 3", "end of terms and conditions"), 4500),
    "GPL-2.0": Licence(r"gpl.*2", ("gnu general public license version 2", "end of terms and conditions"), 2300),
}  # fmt: skip
# The shortest text there is, for samples of checks.
MIT = """MIT License

Copyright (c) the sample maintainers

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def recognise(text: str) -> str:
    """The licence whose text this is; empty where it is no known one, or not the whole of it."""
    straight = text.replace("\u201c", '"').replace("\u201d", '"')
    flat = " ".join(re.sub(r"[^\w\s\"',.\-]", " ", straight).lower().split())
    for name, one in LICENCES.items():
        if all(passage in flat for passage in one.passages) and words(text) >= one.least:
            return name
    return ""


def identifier(written: str) -> str:
    """The identifier of a licence as people write it; as it is where it is none of those known here."""
    return next((name for name, one in LICENCES.items() if re.search(one.written, written, re.IGNORECASE)), written)
