"""What the history of a repository shows of how it is worked on.

Each rule is called like the criterion that it judges. One that the history cannot show is left out, so that somebody's
word can stand for it: branches that were rebased onto the main one leave no trace, nor do reviews that a hosting
service keeps.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

from sqa.check import Canary, Check, Look, Report
from sqa.contents import MARKUP
from sqa.history import Change, History, order
from sqa.metadata import SEMVER, stated
from sqa.options import Options, asked, taken

PAGE = re.compile(r"(^|/)(docs?|documentation|changelogs?)/|(^|/)(README|CHANGE(LOG|S)|NEWS)[^/]*$", re.IGNORECASE)
ISSUE = re.compile(r"(?<![\w(])(?:#\d+|[\w.-]+/[\w.-]+#\d+|[A-Z][A-Z0-9]+-\d+)\b")
CLOSES = re.compile(r"\b(?:clos|fix|resolv)(?:e[sd]?|es|ed)?:? +(?:#|[\w./-]+#)\d+", re.IGNORECASE)
APPROVED = re.compile(r"^(?:Reviewed|Approved|Acked)-by:.*?<?([^\s<>]+@[^\s<>]+)>?\s*$", re.MULTILINE | re.IGNORECASE)

Problem = tuple[str, str]  # rule, and what is wrong


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``main``: the main branch. ``since``: the conventions count for changes after this revision. ``branches``: prefixes
    of the names of branches.
    """

    main: str = ""
    since: str = ""
    branches: tuple[str, ...] = (
        "feature", "feat", "fix", "bugfix", "hotfix", "release", "docs", "chore", "refactor", "test", "ci",
        "dependabot", "renovate", "develop",
    )  # fmt: skip


def inspect(look: Look) -> Report:
    """Judge what the history can show."""
    own = taken(look, Taken)
    past = History(look.tree, own.main, own.since)
    past.require()
    found: list[Problem] = []
    judged = {"QC.Acc02", "QC.Doc01", "QC.Doc04", "SvcQC.Doc03", "SvcQC.Doc04"}
    for rules, problems in (
        _by_branches(past, own.branches), _by_requests(past), _reviewed(past), _second_branch(past),
        _versions(past, look),
    ):  # fmt: skip
        judged |= rules
        found += problems
    found += _documentation(past)
    tracked = set(look.tree.git("ls-files", "-z").split("\0"))
    untracked = [name for name in look.files if name not in tracked]
    wanted = asked(look, ALL)
    findings = [look.finding("", None, rule, said) for rule, said in found if rule in wanted]
    findings += [
        look.finding(name, None, rule, "is not tracked; add it or have .gitignore leave it out")
        for name in untracked
        for rule in asked(look, ("QC.Acc02", "QC.Doc01", "SvcQC.Doc03") if _is_page(name) else ("QC.Acc02",))
    ]
    work: dict[str, str | int] = {
        "main branch": past.main, "changes": len(past.changes), "merges": sum(one.is_merge for one in past.changes),
        "releases": len(past.tags), "not shown by this history": ", ".join(sorted(set(wanted) - judged)) or "nothing",
    }  # fmt: skip
    return Report(findings, [name for name in look.files if name not in untracked], work, judged & set(wanted))


ALL = (
    "QC.Acc02", "QC.Wor02", "QC.Wor02.1", "QC.Wor03", "QC.Wor03.1", "QC.Wor03.2", "QC.Man02.1", "QC.Man02.5",
    "QC.Man02.6", "QC.Rev04", "QC.Ver01", "QC.Doc01", "QC.Doc04", "SvcQC.Doc03", "SvcQC.Doc04",
)  # fmt: skip


def _by_branches(past: History, prefixes: tuple[str, ...]) -> tuple[set[str], list[Problem]]:
    """Changes arrive as merges. A history without one cannot tell a rebased branch from a commit made on main."""
    brought = [one for one in past.changes if one.is_merge or one.names_request]
    if not brought:
        return set(), []
    direct = [one for one in past.changes if one not in brought]
    problems = [("QC.Wor02", _some(direct, past.changes, "came without a branch of their own"))] if direct else []
    named = [one for one in brought if one.branch]
    odd = [one for one in named if not re.match(rf"(?:{'|'.join(map(re.escape, prefixes))})(?:[/_-]|$)", one.branch)]
    problems += [("QC.Wor02.1", f"merged branch {one.branch} begins with none of {', '.join(prefixes)}") for one in odd]
    return {"QC.Wor02", *({"QC.Wor02.1"} if named else ())}, problems


def _by_requests(past: History) -> tuple[set[str], list[Problem]]:
    """Changes name their request, and the issues that it settles."""
    requests = [one for one in past.changes if one.names_request]
    if not requests:
        return set(), []
    without = [one for one in past.changes if not one.names_request]
    problems = [("QC.Man02.1", _some(without, past.changes, "name no request"))] if without else []
    silent = [one for one in requests if not ISSUE.search(_body(one))]
    if silent:
        problems.append(("QC.Man02.6", _some(silent, requests, "name no issue")))
    if not any(CLOSES.search(one.message) for one in requests):
        problems.append(("QC.Man02.5", "no request says which issue it closes (Closes #12)"))
    return {"QC.Man02.1", "QC.Man02.5", "QC.Man02.6"}, problems


def _reviewed(past: History) -> tuple[set[str], list[Problem]]:
    """Changes since the last release are approved by somebody else, where approvals are kept in messages at all."""
    if not any(APPROVED.search(one.message) for one in past.changes):
        return set(), []
    recent = past.changes
    if past.releases:
        after = set(past.tree.git("rev-list", f"refs/tags/{past.releases[-1]}..{past.main}").split())
        recent = tuple(one for one in recent if one.revision in after)
    lone = [one for one in recent if not set(APPROVED.findall(one.message)) - _wrote(past, one)]
    problems = [("QC.Rev04", _some(lone, recent, "carry no approval by somebody else (Reviewed-by:)"))] if lone else []
    return {"QC.Rev04"}, problems


def _second_branch(past: History) -> tuple[set[str], list[Problem]]:
    """The next release grows on a branch of its own, fed by merges; releases are merges of it."""
    if not past.next:
        return {"QC.Wor03"}, [
            ("QC.Wor03", "no long-lived branch beside the main one (such as develop) is in this clone")
        ]
    problems: list[Problem] = []
    direct = [one for one in past.fed() if not (one.is_merge or one.names_request)]
    if direct:
        problems.append(("QC.Wor03.1", _some(direct, past.fed(), f"on {past.next} came without a branch of their own")))
    for tag in past.releases:
        if past.parents(f"refs/tags/{tag}") < 2:
            problems.append(("QC.Wor03.2", f"release {tag} is not on a merge into {past.main}"))
        elif not past.same_tree(f"refs/tags/{tag}", f"refs/tags/{tag}^2"):
            problems.append(("QC.Wor03.2", f"release {tag} differs from the branch that was merged for it"))
    return {"QC.Wor03", "QC.Wor03.1", *({"QC.Wor03.2"} if past.releases else ())}, problems


def _versions(past: History, look: Look) -> tuple[set[str], list[Problem]]:
    """Releases are semantic versions that rise; before the first one, the version that the metadata state."""
    written = {tag: tag for tag in past.tags}
    if not written:
        written = {f"{one.path} states": one.version for one in stated(look.files, look.text) if one.version}
    wrong = [(name, version) for name, version in written.items() if not re.fullmatch(SEMVER, version)]
    problems = [
        ("QC.Ver01", f"{name}: {version} is no semantic version (MAJOR.MINOR.PATCH)" if name != version else
         f"tag {version} is no semantic version (vMAJOR.MINOR.PATCH)")
        for name, version in wrong
    ]  # fmt: skip
    good = [tag for tag in past.releases if re.fullmatch(SEMVER, tag)]
    problems += [
        ("QC.Ver01", f"release {after} comes after {before} and is not higher")
        for before, after in pairwise(good)
        if order(after) <= order(before)
    ]
    return {"QC.Ver01"} if written else set(), problems


def _documentation(past: History) -> Iterator[Problem]:
    """Pages change with the code, and with each release."""
    commits = past.commits()
    if commits and not any(any(map(_is_page, names)) and not all(map(_is_page, names)) for names in commits):
        yield (
            "QC.Doc01",
            "no commit changes code and pages together: documentation does not go through the same changes",
        )
    later = [tag for tag in past.releases if not past.since or not past.contains(past.since, f"refs/tags/{tag}")]
    for before, after in pairwise([past.since, *(f"refs/tags/{tag}" for tag in later), past.main]):
        changed = past.between(before, after)
        if changed and not any(map(_is_page, changed)):
            what = f"{(before or 'the beginning').removeprefix('refs/tags/')}..{after.removeprefix('refs/tags/')}"
            yield "QC.Doc04", f"{what} changes neither a page nor the changelog"
            yield "SvcQC.Doc04", f"{what} changes neither a page nor the changelog"


def _is_page(name: str) -> bool:
    return bool(PAGE.search(name)) or PurePosixPath(name).suffix in MARKUP


def _wrote(past: History, change: Change) -> set[str]:
    return {change.author, *(past.authors(change) if change.is_merge else ())}


def _body(change: Change) -> str:
    """The message without the number of the request itself."""
    return re.sub(r"^Merge pull request #\d+|\(#\d+\)$", "", change.message, flags=re.MULTILINE)


def _some(some: list[Change], of: tuple[Change, ...] | list[Change], what: str) -> str:
    return f"{len(some)} of {len(of)} changes {what}; the newest: {some[0]}"


def _make_history(root: Path) -> None:
    """A main branch and a next one, a change by request, and a release that is called as the file VERSION says."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    }  # fmt: skip

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=one", "-c", "user.email=one@sample.test", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *identity, *arguments], cwd=root, env=environment, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", "VERSION")
    git("commit", "--quiet", "--message=Begin")
    git("checkout", "--quiet", "-b", "develop")
    git("checkout", "--quiet", "-b", "feature/pages")
    git("add", ".")
    git("commit", "--quiet", "--message=Add pages")
    approval = "Closes #1\n\nReviewed-by: two <two@sample.test>"
    for branch, merged, number in (("develop", "feature/pages", 2), ("main", "develop", 3)):
        git("checkout", "--quiet", branch)
        subject = f"Merge pull request #{number} from sample/{merged}"
        git("merge", "--quiet", "--no-ff", f"--message={subject}\n\n{approval}", merged)
    git("tag", (root / "VERSION").read_text(encoding="utf-8").strip())


PAGES = {"docs/index.md": "# Pages\n", "sample.py": "COUNT = 1\n"}
CHECK = Check(
    name="git-history",
    title="What the history shows",
    inspect=inspect,
    files=("*",),
    canary=Canary(
        "QC.Ver01", bad={"VERSION": "v1.0\n", **PAGES}, good={"VERSION": "v1.0.0\n", **PAGES}, prepare=_make_history
    ),
    of_repository=True,
    seconds=1,
)
