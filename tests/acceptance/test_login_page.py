"""A person with a browser: from the registry's address through the login page, in and out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from plugins.filter.secrets import derived_secret
from tests.acceptance.probes import browser
from tests.acceptance.probes.identity import site_trust
from tests.acceptance.probes.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.group("registry")


class Visit:
    """What a person does, and pictures of what they see."""

    def __init__(self, page: Page, site: Site, hostname: str, folder: Path) -> None:
        self.page = page
        self._site = site
        self._hostname = hostname
        self._folder = folder
        self.address = f"https://{site.value(hostname, 'registry_login_endpoint')}/v2/_catalog"

    def person(self, part: str) -> str:
        """User name of whoever plays ``part`` in the checks."""
        people: dict[str, str] = self._site.value(self._hostname, "acceptance_people")
        if part not in people:
            pytest.skip(f"acceptance_people names nobody for: {part}")
        return people[part]

    def open(self) -> None:
        """Open the protected page."""
        self.page.goto(self.address)

    def log_in(self, user: str, password: str | None = None) -> None:
        """Fill in the login page, by default with the person's own password."""
        seed = str(self._site.value(self._hostname, "iam_seed"))
        self.page.locator("#username").fill(user)
        self.page.locator("#password").fill(password or derived_secret(seed, "user", user))
        self.page.locator("#kc-login").click()

    def at_login(self) -> bool:
        """Whether the browser shows the IAM's login page."""
        issuer = str(self._site.value(self._hostname, "iam_issuer"))
        return self.page.url.startswith(issuer) and self.page.locator("#password").is_visible()

    def picture(self, name: str) -> None:
        """Keep what is seen beside the verdict."""
        self.page.screenshot(path=self._folder / f"login-page-{name}.png")


@pytest.fixture
def visit(site: Site, host: Any, hostname: str, report_folder: Path | None, tmp_path: Path) -> Iterator[Visit]:
    """A new person at the registry's address."""
    if why := _unfit(site, hostname):
        pytest.skip(why)
    name, _, port = str(site.value(hostname, "registry_login_endpoint")).partition(":")
    issuer = urlsplit(str(site.value(hostname, "iam_issuer")))
    services = {
        name: (site.address(hostname), int(port)),
        str(issuer.hostname): (site.address(site.value(hostname, "iam_host")), issuer.port or 443),
    }
    with browser.person(services, site_trust(site, hostname), str(tmp_path / "profile")) as page:
        yield Visit(page, site, hostname, report_folder or tmp_path)


def _unfit(site: Site, hostname: str) -> str:
    """Why there is no login page to be tried here; empty when there is one."""
    if hostname not in site.group("oidc_proxy"):
        return f"{hostname} is not in group oidc_proxy: the registry has no login page"
    if not site.has(hostname, "acceptance_people") or not site.value(hostname, "iam_host"):
        return "the site names no test people (acceptance_people), or has no host in group iam"
    return browser.lacking()


def test_a_person_logs_in_and_sees_the_page(visit: Visit) -> None:
    """A member is sent to the login page, logs in and sees the protected page; no script reads the session."""
    visit.open()
    assert visit.at_login(), visit.page.url
    visit.picture("before")
    visit.log_in(visit.person("member"))
    visit.page.wait_for_url(visit.address)
    visit.picture("member")
    assert '"repositories"' in visit.page.content()
    cookies = {cookie["name"]: cookie for cookie in visit.page.context.cookies(visit.address)}
    session = cookies["__Host-registry"]
    assert (session["secure"], session["httpOnly"], session["sameSite"]) == (True, True, "Lax")


def test_a_wrong_password_is_told(visit: Visit) -> None:
    """A wrong password shows an error on the login page and opens nothing."""
    visit.open()
    visit.log_in(visit.person("member"), "not the password")
    visit.page.get_by_text("Invalid username or password").wait_for()
    visit.picture("wrong-password")
    assert visit.at_login(), visit.page.url


def test_somebody_in_no_group_is_told_why(visit: Visit) -> None:
    """A person in none of the groups gets a page that says which ones there are, and how to leave."""
    visit.open()
    with visit.page.expect_response(visit.address) as answer:
        visit.log_in(visit.person("guest"))
    visit.page.wait_for_url(visit.address)
    visit.picture("no-group")
    assert answer.value.status == 403
    assert "none of your groups" in visit.page.content()
    assert visit.page.get_by_role("link", name="log out").is_visible()


def test_logging_out_ends_the_session(visit: Visit) -> None:
    """After logging out the page asks for the password again, for the proxy's and the IAM's session have both ended."""
    visit.open()
    visit.log_in(visit.person("member"))
    visit.page.wait_for_url(visit.address)
    visit.page.goto(visit.address.removesuffix("/v2/_catalog") + "/logout")
    visit.open()
    visit.picture("logged-out")
    assert visit.at_login(), visit.page.url
