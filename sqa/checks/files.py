"""What a repository consists of: the files that its readers, its contributors and machines look for, and what they say.

Each rule is called like the criterion that it judges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from sqa import metadata, spdx
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.contents import MARKUP, PAGE_FOLDERS, Contents, in_tests, words
from sqa.options import Options, asked, taken
from sqa.tree import select

Problem = tuple[str, str]  # file, or nothing, and what is wrong
Rule = Callable[[Contents], Iterator[Problem]]

CITATIONS = {"CITATION.cff": metadata.citation, "codemeta.json": metadata.codemeta}
WORD_PROCESSORS = {".doc", ".docx", ".odt", ".rtf", ".pages"}
LINTERS = (
    r"\b(ruff|flake8|pycodestyle|pylint|ansible-lint|yamllint|shellcheck|hadolint|eslint|stylelint|golangci|clippy|"
    r"rubocop|checkstyle|clang-(format|tidy)|pre-commit|markdownlint|deep sqa)\b"
)
STAND_IN = re.compile(r"(^|_)(fake|mock|stub)s?(_|\.)|(^|/)(fakes|mocks|stubs)/", re.IGNORECASE)
IMPORTS_STAND_IN = re.compile(r"^\s*(?:from|import)\s+(unittest\.mock|mock|tests?)\b", re.MULTILINE)


def branch_names(repo: Contents) -> Iterator[Problem]:
    """The names of branches are agreed on."""
    if not any(re.search(r"branch", line) and re.search(r"\b[a-z]+[/-]", line) for line in _guides(repo)):
        yield repo.guide, "no convention for names of branches is written down, with its prefixes (such as fix/)"


def issue_template(repo: Contents) -> Iterator[Problem]:
    """A template of issues asks for what is needed."""
    wanted = {
        "the symptom": r"happen|expect|symptom|behaviou?r|what (did|do) you (see|saw)",
        "the version": r"version|commit|revision",
        "how to see it again": r"steps|reproduce|command|again", "logs": r"\blogs?\b|output|messages?",
    }  # fmt: skip
    found = select(
        repo.look.files,
        ("/.github/ISSUE_TEMPLATE/*", "!config.yml", "/.gitlab/issue_templates/*", "/.github/ISSUE_TEMPLATE.md"),
    )  # fmt: skip
    if not found:
        yield "", "there is no template of issues (such as .github/ISSUE_TEMPLATE/defect.md)"
        return
    whole = "\n".join(map(repo.text, found))
    for what, pattern in wanted.items():
        if not re.search(pattern, whole, re.IGNORECASE):
            yield found[0], f"the template does not ask for {what}"


def outsiders(repo: Contents) -> Iterator[Problem]:
    """The contribution guide says how a change is proposed."""
    if not re.search(r"(pull|merge)\s+request|\bfork|send (a |the )?patch", repo.text(repo.guide), re.IGNORECASE):
        yield repo.guide, "the contribution guide does not say how somebody outside proposes a change"


def request_template(repo: Contents) -> Iterator[Problem]:
    """There is a template of pull or merge requests."""
    name = re.compile(
        r"^((\.github|docs)/)?pull_request_template(\.\w+$|/)|^\.gitlab/merge_request_templates/", re.IGNORECASE
    )
    found = [path for path in repo.look.files if name.match(path)]
    if not any(words(repo.text(path)) >= 10 for path in found):
        yield found[0] if found else "", "no template of pull or merge requests says what is to be written in one"


def declared_licence(repo: Contents) -> Iterator[Problem]:
    """One licence is declared."""
    declared = {one.path: spdx.identifier(one.licence) for one in repo.metadata if one.licence}
    if not declared:
        yield "", "no metadata file declares the licence (such as pyproject.toml, galaxy.yml, meta/main.yml)"
        return
    usual = Counter(declared.values()).most_common(1)[0][0]
    for path, licence in declared.items():
        if licence != usual:
            yield path, f"declares {licence}, other files declare {usual}"


def licence_text(repo: Contents) -> Iterator[Problem]:
    """The licence that is declared is at the root, whole."""
    yield from whole_licence(repo)
    found = next((name for name in _licence_files(repo) if spdx.recognise(repo.text(name))), "")
    declared = {spdx.identifier(one.licence) for one in repo.metadata if one.licence}
    text = spdx.recognise(repo.text(found))
    # A sum of licences, or one without a text here to compare with, is for the check of licences.
    if text and len(declared) == 1 and declared <= set(spdx.LICENCES) and text not in declared:
        yield found, f"is the text of {text}, but the metadata name {', '.join(declared)}"


def whole_licence(repo: Contents) -> Iterator[Problem]:
    """The text of a licence, not only its name, is at the root."""
    found = _licence_files(repo)
    if not found:
        yield "", "there is no LICENSE or COPYING at the root"
    elif not any(spdx.recognise(repo.text(name)) or _unknown_but_long(repo, name) for name in found):
        yield found[0], "does not hold the whole text of a licence"


def metadata_file(repo: Contents) -> Iterator[Problem]:
    """A citation or CodeMeta file is valid and states the version of the package."""
    present = [name for name in CITATIONS if name in repo.known]
    if not present:
        yield "", "there is neither CITATION.cff nor codemeta.json"
    stated = {one.path: one for one in repo.metadata}
    versions = {one.version for one in repo.metadata if one.version and one.path not in CITATIONS}
    for name in present:
        if stated[name].problem:
            yield name, f"cannot be read: {stated[name].problem}"
            continue
        yield from ((name, wrong) for wrong in CITATIONS[name](repo.text(name)))
        if versions and stated[name].version not in versions:
            yield name, f"states version {stated[name].version or '(none)'}, the package {', '.join(sorted(versions))}"


def beside_the_code(repo: Contents) -> Iterator[Problem]:
    """Pages are in the repository."""
    if not any(words(repo.text(name)) >= 50 for name in repo.pages):
        yield "", "no page of documentation is in the repository"


def plain_text(repo: Contents) -> Iterator[Problem]:
    """Pages are text with markup."""
    if not repo.pages:
        yield "", "there is no page in Markdown, reStructuredText or AsciiDoc"
    for name in repo.look.files:
        path = PurePosixPath(name)
        if path.suffix.lower() in WORD_PROCESSORS and not any(
            str(path.with_suffix(suffix)) in repo.known for suffix in MARKUP
        ):
            yield name, "a page in a word processor's format"


def one_markup(repo: Contents) -> Iterator[Problem]:
    """All pages have the same markup."""
    by_page = {name: MARKUP[suffix] for name in repo.pages if (suffix := PurePosixPath(name).suffix) in MARKUP}
    usual = Counter(by_page.values()).most_common(1)
    for name, markup in by_page.items():
        if markup != usual[0][0]:
            yield name, f"is {markup}, most pages are {usual[0][0]}"


def each_reader(repo: Contents) -> Iterator[Problem]:
    """Each kind of reader finds pages, from an index."""
    index = next((name for name in (*_indices(repo), repo.readme) if _leads_on(repo, name)), "")
    if not index:
        yield "", "no index (README, docs/index) leads to the pages"
    for kind, rules in (("developers", DEVELOPERS), ("administrators", OPERATORS), ("users", USERS)):
        if not any(any(repo.about(topic)) for topic in rules.values()):
            yield "", f"no page is for {kind}"


def readme(repo: Contents) -> Iterator[Problem]:
    """The README introduces the software."""
    if not repo.readme:
        yield "", "there is no README at the root"
        return
    text = repo.text(repo.readme)
    if words("\n".join(one.body for one in repo.sections(repo.readme)[:2])) < 15:
        yield repo.readme, "does not say in its first lines what the software is"
    for what, pattern in README.items():
        if not re.search(pattern, text, re.IGNORECASE | re.MULTILINE):
            yield repo.readme, f"does not say {what}"


def contributing(repo: Contents) -> Iterator[Problem]:
    """The contribution guide leads from a checkout to a proposed change."""
    if not repo.guide:
        yield "", "there is no CONTRIBUTING at the root"
        return
    wanted = {
        "how to get to a working checkout": r"clone|check ?out|install|set up|environment",
        "how to run the tests": r"\btests?\b", "how to propose the change": r"(pull|merge)\s+request|patch",
    }  # fmt: skip
    if words(repo.text(repo.guide)) < 60:
        yield repo.guide, "is too short to lead from a checkout to a proposed change"
    for what, pattern in wanted.items():
        if not re.search(pattern, repo.text(repo.guide), re.IGNORECASE):
            yield repo.guide, f"does not say {what}"


def conduct(repo: Contents) -> Iterator[Problem]:
    """There is a code of conduct that says whom to turn to."""
    name = repo.front("CODE[_-]OF[_-]CONDUCT")
    if not name:
        yield "", "there is no CODE_OF_CONDUCT at the root"
    elif words(repo.text(name)) < 40 or not re.search(r"report|contact|turn to|@", repo.text(name), re.IGNORECASE):
        yield name, "does not say what is asked of people and whom to turn to"


def developers(repo: Contents) -> Iterator[Problem]:
    """Pages describe the parts, and how the software is built."""
    yield from _missing(repo, DEVELOPERS)


def operators(repo: Contents) -> Iterator[Problem]:
    """Pages lead those who run the software, with a reference card."""
    yield from _missing(repo, OPERATORS)
    card = {
        "processes": r"process|service|unit", "ports": r"\bports?\b", "logs": r"\blogs?\b",
        "files or state": r"\bfiles?\b|state",
        "scheduled work": r"schedul|timer|cron|periodic",
    }  # fmt: skip
    cards = [repo.text(name) for name in repo.about(r"reference.?card|runbook")]
    if not any(all(re.search(one, text, re.IGNORECASE) for one in card.values()) for text in cards):
        yield "", f"no reference card or runbook lists {', '.join(card)}"


def users(repo: Contents) -> Iterator[Problem]:
    """Users find a guide and a reference."""
    yield from _missing(repo, USERS)


def written_style(repo: Contents) -> Iterator[Problem]:
    """The style is written down."""
    if not any(repo.about(r"\b(style|rules|conventions?|guidelines?|formatting|linting)\b")):
        yield repo.guide, "no section on style, rules or conventions says what right code looks like"


def checked_style(repo: Contents) -> Iterator[Problem]:
    """The pipeline runs linters."""
    if not repo.pipeline:
        yield "", "no pipeline is defined (such as .github/workflows, .gitlab-ci.yml, Jenkinsfile, .ci)"
    elif not re.search(LINTERS, repo.pipeline):
        yield "", "the pipeline, with the make, tox, nox or pre-commit that it calls, runs no linter"


def tests_apart(repo: Contents) -> Iterator[Problem]:
    """Tests have a folder of their own, which the package leaves out."""
    if not repo.tests:
        yield "", "there are no tests (test_*.py, *_test.sh, *.spec.js, molecule.yml)"
    for name in repo.tests:
        if not in_tests(name) and re.search(r"\b(def test_|class Test|it\(|test\()", repo.text(name)):
            yield name, "a test among the code; tests have a folder of their own"
    packaged = re.search(r"find_packages\(\s*\)", repo.text("setup.py")) if "setup.py" in repo.known else None
    if packaged and "tests/__init__.py" in repo.known:
        yield "setup.py", "find_packages() without exclude takes the tests into the package"


def stand_ins_apart(repo: Contents) -> Iterator[Problem]:
    """Stand-ins are among the tests, and no code needs one."""
    for name in repo.code:
        if STAND_IN.search(name):
            yield name, "a stand-in among the code; its place is among the tests"
        elif (found := IMPORTS_STAND_IN.search(repo.text(name))) and not name.startswith(("tools/", "benchmarks/")):
            yield name, f"code that is delivered imports {found[1]}"


def functional_tests(repo: Contents) -> Iterator[Problem]:
    """Functional tests come with the software."""
    if not any(re.search(r"acceptance|functional|e2e|integration|system|molecule", name) for name in repo.tests):
        yield "", "no functional tests are in the repository (tests/functional, acceptance, e2e, integration, molecule)"


def identifier(repo: Contents) -> Iterator[Problem]:
    """The metadata name a persistent identifier."""
    names = [name for name in ("CITATION.cff", "codemeta.json", ".zenodo.json") if name in repo.known]
    if not any(re.search(r"\b10\.\d{4,9}/\S+|hdl\.handle\.net/\S+", repo.text(name)) for name in names):
        yield (names[0] if names else ""), "no metadata file names a DOI or handle of the documentation"


# What a page for each kind of reader is about, by its name or a heading.
DEVELOPERS = {
    "how the parts fit together": r"architecture|design|internals?\b|structure|how (it|this) (is built|works)|anatomy",
    "how the software is built and tested": r"contribut|hacking|develop|build|set ?up|tests?\b|testing",
}
OPERATORS = {
    "installation": r"install|deploy|set ?up|getting started|requirements",
    "configuration": r"configur|settings|variables|options|inventory|parameters|site",
    "security": r"security|secrets|authenti|authori|access|hardening|rights|password",
    "common trouble": r"trouble|faq|known (issues|problems)|problems|common errors|when it fails",
}
USERS = {
    "a guide for users": r"usage|user|tutorial|quick ?start|getting started|guide|examples?|how to",
    "a reference of commands or interfaces": r"reference(?! card)|command.?line|cli\b|commands|api\b|interface",
}
README = {
    "how to start": r"install|quick ?start|getting started|usage|^```|^\$ |::$",
    "how to run the tests": r"\btests?\b", "where more is written": r"docs?/|documentation|readthedocs|wiki",
    "how it is versioned": r"version|releases?\b|changelog",
    "by whom it is": r"authors?\b|maintain|contributors|citation|cite|contact|written by",
}  # fmt: skip

RULES: dict[str, Rule] = {
    "QC.Wor02.1": branch_names,
    "QC.Man01.2": issue_template,
    "QC.Man02.2": outsiders,
    "QC.Man02.4": request_template,
    "QC.Lic01": declared_licence,
    "QC.Lic01.1": licence_text,
    "QC.Met01": metadata_file,
    "QC.Doc01.1": beside_the_code,
    "QC.Doc02": plain_text,
    "QC.Doc02.1": one_markup,
    "QC.Doc06": each_reader,
    "QC.Doc06.1": readme,
    "QC.Doc06.2": contributing,
    "QC.Doc06.3": conduct,
    "QC.Doc06.4": whole_licence,
    "QC.Doc06.5": developers,
    "QC.Doc06.6": operators,
    "QC.Doc06.7": users,
    "QC.Sty02.1": written_style,
    "QC.Sty04": checked_style,
    "QC.Uni02": tests_apart,
    "QC.Har02": stand_ins_apart,
    "SvcQC.Fun03": functional_tests,
    "SvcQC.Doc02": identifier,
    "SvcQC.Doc07": each_reader,
    "SvcQC.Doc07.1": operators,
    "SvcQC.Doc07.2": users,
}


def _guides(repo: Contents) -> Iterator[str]:
    """Paragraphs of the contribution guide and of the other pages for developers."""
    for name in dict.fromkeys(filter(None, [repo.guide, *repo.about(DEVELOPERS["how the parts fit together"])])):
        yield from re.split(r"\n\s*\n", repo.text(name))


def _licence_files(repo: Contents) -> list[str]:
    return [name for name in repo.look.files if re.match(r"^(LICEN[SC]E|COPYING)([.-][\w.-]+)?$", name, re.IGNORECASE)]


def _unknown_but_long(repo: Contents, name: str) -> bool:
    declared = {spdx.identifier(one.licence) for one in repo.metadata if one.licence}
    return not declared & set(spdx.LICENCES) and words(repo.text(name)) >= 90


def _indices(repo: Contents) -> tuple[str, ...]:
    return select(repo.pages, tuple(f"{folder}{name}.*" for folder in PAGE_FOLDERS for name in ("index", "README")))


def _leads_on(repo: Contents, name: str) -> bool:
    """Whether a page links to others of the repository, or is the only one."""
    linked = re.findall(r"\]\(([^)\s:#]+)|toctree|<([\w./-]+)>`|:doc:", repo.text(name))
    return bool(name) and (len(linked) >= 2 or len(repo.pages) <= 3)


def _missing(repo: Contents, topics: dict[str, str]) -> Iterator[Problem]:
    for what, topic in topics.items():
        if not any(repo.about(topic)):
            yield "", f"no page is about {what}"


def inspect(look: Look) -> Report:
    """Ask each rule; a file that cannot be read is a rule that cannot be asked."""
    taken(look, Options)
    repo = Contents(look)
    broken = next((one for one in repo.metadata if one.problem and one.path not in CITATIONS), None)
    if broken:
        raise InconclusiveError(f"{broken.path}: cannot be read: {broken.problem}; next: correct the file")
    rules = asked(look, RULES)
    found = [look.finding(path, None, name, said) for name in rules for path, said in RULES[name](repo)]
    return Report(found, look.files, {"files read": len(repo.texts), "rules": len(rules)}, rules)


SAMPLE = {
    "LICENSE": spdx.MIT,
    "README.md": """# Sample

A sample counts the words of a text and says which of them comes most often, in any language that has words.

## Start

    pip install sample

## More

[Pages](docs/index.md). Run the tests with `make test`. Versions: [releases](CONTRIBUTING.md).
By the sample maintainers.
""",
    "CONTRIBUTING.md": """# Contributing

## Set up

Clone the repository, install it with `pip install -e .` and run the tests with `make test` before you change a thing.

## Rules

Code keeps to the style that ruff checks: short functions with names that say what they do, and no clever tricks.

## Propose a change

Make a branch that is called `fix/WHAT` or `feature/WHAT`, commit the change with its test and its page, and open a pull
request. Somebody else looks at it, and merges it when the pipeline has passed.
""",
    "CODE_OF_CONDUCT.md": """# Code of conduct

Criticise the work and never the person. Say what you saw and what you expected. No insults and no harassment, in any
channel of the project. Whoever goes on after being asked to stop loses the right to take part. Report a problem to any
maintainer in private; what you report stays confidential.
""",
    "CITATION.cff": """cff-version: 1.2.0
message: Cite it as below.
title: Sample
authors: [{name: sample maintainers}]
version: 1.0.0
license: MIT
doi: 10.5281/zenodo.0
""",
    "pyproject.toml": '[project]\nname = "sample"\nversion = "1.0.0"\nlicense = "MIT"\n',
    ".github/ISSUE_TEMPLATE/defect.md": "What happened, in which version? The command to see it again? The logs?\n",
    ".github/pull_request_template.md": "What this changes and why, which issue it settles, which test is for it.\n",
    ".github/workflows/ci.yml": "jobs: {style: {steps: [{run: ruff check .}]}}\n",
    "docs/index.md": """# Pages

[Architecture](architecture.md), [operation](operation.md), [usage](usage.md): each is for somebody else.
""",
    "docs/architecture.md": """# Architecture

Two parts: one reads and one counts. The reader knows encodings, the counter knows words. A text goes from the first to
the second as a sequence of lines, never as a whole, so that its length does not matter.

## Build and test

Run `make`, then `make test`, then look at what it says.
""",
    "docs/operation.md": """# Operation

## Installation

Install the package with pip, as an ordinary user.

## Configuration

One file in the folder of configuration, which is optional.

## Security

It reads files with the rights of its user.

## Troubleshooting

It says which line it does not understand.

## Reference card

One process and no service; it listens on no port, writes its logs to standard error, keeps no state, schedules nothing.
""",
    "docs/usage.md": """# Usage

Count the words of a file and see them.

## Command line reference

`sample FILE` prints the word and its count.
""",
    "sample.py": "COUNT = 1\n",
    "tests/functional/test_sample.py": "def test_sample():\n    assert True\n",
}  # fmt: skip

CHECK = Check(
    name="files",
    title="What a repository consists of",
    inspect=inspect,
    files=("*",),
    canary=Canary(
        "QC.Doc06.3", bad={name: text for name, text in SAMPLE.items() if name != "CODE_OF_CONDUCT.md"}, good=SAMPLE
    ),
    of_repository=True,
    environment=lambda _tree, _settings: "",  # every file is one of those that it looks at
    seconds=1,
)
