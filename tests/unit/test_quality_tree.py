"""Rules that hold for the whole tree: addresses, pins, versions, the collection, the make targets."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from testbed.paths import repo_root

ROOT = repo_root()
GO = Path(sys.executable).parent / "go"


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, under version control."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def occurrences(words: set[str], among: tuple[Path, ...]) -> list[str]:
    """``FILE: WORD`` for each word that a file contains; words are looked for with no letter or dot before them."""
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(word)}" for word in sorted(words)))
    found = []
    for path in among:
        text = path.read_text(encoding="utf-8", errors="ignore")
        found += [f"{path}: {word}" for word in sorted(set(pattern.findall(text)))]
    return found


def output(*argv: str | Path) -> str:
    """What a program prints; nothing when it is not there."""
    if not shutil.which(argv[0]):
        return ""
    return subprocess.run(argv, cwd="/", check=False, capture_output=True, text=True).stdout


def pip_addresses() -> str:
    """Addresses that pip uses on this machine, and those it would use unconfigured."""
    index = pytest.importorskip("pip._internal.models.index")
    defaults = f"{index.PyPI.url} https://{index.PyPI.file_storage_domain}"
    return f"{defaults} {output(sys.executable, '-m', 'pip', 'config', 'list')}"


def go_addresses() -> str:
    """Addresses of the Go module mirror and checksum database."""
    proxies, database = output(GO, "env", "GOPROXY", "GOSUMDB").splitlines()
    return f"{proxies.replace(',', ' ')} https://{database.split()[0]}"


def apt_addresses() -> str:
    """Addresses of the distribution's package mirrors."""
    return output("apt-get", "indextargets", "--format", "$(REPO_URI)")


def npm_addresses() -> str:
    """The address of the npm registry."""
    return output("npm", "config", "get", "registry")


def hosts(addresses: str) -> set[str]:
    """The host names in a text full of addresses."""
    found = (urlsplit(address).hostname for address in re.findall(r"https?://[^\s'\",\]]+", addresses))
    return {host for host in found if host and host not in {"localhost", "127.0.0.1"}}


@pytest.mark.parametrize("client", [pip_addresses, go_addresses, apt_addresses, npm_addresses])
def test_no_host_of_a_package_registry_is_written_down(client: Any) -> None:
    registries = hosts(client())
    if not registries:
        pytest.skip("this client is not installed here")
    assert occurrences(registries, files()) == []


def test_no_path_of_this_machine_is_written_down() -> None:
    places = {str(ROOT)} | ({f"{Path.home()}/"} - {"/root/"})
    assert occurrences(places, files()) == []
    homes = re.compile(r"(?<![\w.-])/(home|Users)/[a-z]\w*/")
    here = Path(__file__)
    assert [str(path) for path in files() if path != here and homes.search(path.read_text("utf-8", "ignore"))] == []


def test_the_search_for_words_finds_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("get it from https://packages.example.org/x, not from my.packages.example.org\n")
    assert occurrences({"packages.example.org"}, (page,)) == [f"{page}: packages.example.org"]
    assert occurrences({"other.example.org"}, (page,)) == []
    assert hosts("see https://a.example/x,direct 'http://b.example:80/'") == {"a.example", "b.example"}


REQUIREMENTS = [*sorted((ROOT / "requirements").glob("*.txt")), *sorted(ROOT.glob("pipelines/*/requirements/*.txt"))]


def unpinned(text: str) -> list[str]:
    """Requirements of a file that lack an exact version or a hash."""
    entries = re.sub(r"\\\n", " ", text).splitlines()
    wanted = [line for line in entries if line.strip() and not line.lstrip().startswith("#")]
    return [line for line in wanted if not re.match(r"[A-Za-z0-9._\[\],-]+==\S+.* --hash=sha256:[0-9a-f]{64}", line)]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: str(path.name))
def test_requirements_are_pinned_with_hashes_and_without_addresses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert unpinned(text) == []
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_a_requirement_without_a_hash_is_noticed() -> None:
    assert REQUIREMENTS
    assert unpinned("rich==15.0.0\n") == ["rich==15.0.0"]
    assert unpinned(f"rich>=15 --hash=sha256:{'0' * 64}\n")
    assert unpinned(f"rich==15.0.0 \\\n    --hash=sha256:{'0' * 64}\n    # via typer\n") == []


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # PyTorch is left to who installs it: which build fits is up to the driver, and each takes gigabytes.
    groups = {name: group for name, group in project["optional-dependencies"].items() if name != "torch"}
    extras = [entry for group in groups.values() for entry in group]
    wanted = {re.split(r"[<>=\[;]", entry)[0].lower() for entry in [*project["dependencies"], *extras]}
    pins = "\n".join(path.read_text(encoding="utf-8") for path in REQUIREMENTS)
    assert wanted <= {name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==", pins, re.MULTILINE)}


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version


def guides() -> str:
    """What people read: the front pages and the guides, without the generated reference."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def test_every_collection_that_is_used_is_declared() -> None:
    declared = set(yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"])
    sources = [path for path in files() if path.suffix in {".yml", ".j2", ".cfg"} and path.parts[-2] != "artifacts"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    used = set(re.findall(r"(?<![\w./-])((?:ansible|community|kubernetes)\.[a-z]+)\.[a-z_]+\b", text))
    assert used - {"ansible.builtin"} == declared


def targets() -> dict[str, str]:
    """Targets of the Makefile and the comment that documents each."""
    found = re.findall(r"^([a-z][a-z-]*):(?!=)(?:.*?##\s*(.*))?", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    return dict(found)


def test_every_make_target_is_documented() -> None:
    documented = targets()
    assert {"testbed", "test", "lint", "docs", "help"} <= set(documented)
    assert [name for name, comment in documented.items() if not comment] == []
    mention = r"(?:`|^(?:\$ )?)make {}\b"
    assert [name for name in documented if not re.search(mention.format(name), guides(), re.MULTILINE)] == []


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize(
    "page", [path for path in files() if path.suffix == ".md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_commands_of_the_guides_exist() -> None:
    reference = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^## (deep \S+ \S+)", reference, re.MULTILINE))
    assert known
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    used = {
        found
        for page in pages
        for found in re.findall(r"deep (?:testbed|site|artifacts) [a-z]+", page.read_text("utf-8"))
    }
    assert used - known == set()


def test_no_secret_file_is_tracked() -> None:
    assert [path for path in files() if path.name in {"secrets.yml", "vault-password"} or path.suffix == ".key"] == []
