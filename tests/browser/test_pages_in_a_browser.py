"""The real pages in a real Chromium: nothing smuggled in runs, our forms work, everything fits a telephone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.site import MALICE, Site, furnish, malicious, running_site

from threadbridge.domain.accounts import Account, AccountState
from threadbridge.storage import accounts

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
# Where pictures of the pages are put for somebody to look at; nowhere by default.
SHOTS = os.environ.get("THREADBRIDGE_TEST_SCREENSHOTS")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")

WIDER_THAN_THE_SCREEN = """() => {
  const wide = document.documentElement.clientWidth;
  return [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > wide + 1 && !e.closest('.skip, .unseen, .invisible'))
    .map(e => e.outerHTML.slice(0, 120));
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("browser"), operator_contact="ops@bridge.example") as running:
        yield running


@pytest.fixture(scope="module")
def marta(site: Site) -> Account:
    return furnish(site)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
        )
        yield running
        running.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh profile at the width of a phone; whatever a page complains about or asks elsewhere fails the test."""
    context = browser.new_context(viewport=PHONE)
    opened = context.new_page()
    opened.complaints = []
    opened.on("dialog", lambda dialog: (opened.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    yield opened
    context.close()


def _shoot(page: Any, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


def test_nothing_that_anybody_smuggled_in_runs(site: Site, page: Any) -> None:
    account = malicious(site)
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.extend([] if request.url.startswith(site.base) else [request.url]))
    page.goto(site.login_link(account))
    page.get_by_role("button", name="Sign in").click()
    paths = [
        "/",
        "/@mallory",
        *(f"/@mallory/{site.numbers[f'attack{n}']}" for n in range(len(MALICE))),
        "/tags/49",
        "/owner",
        "/owner/posts",
        "/owner/deliveries?show=problems",
        "/owner/replies",
        "/owner/heard",
    ]
    for path in paths:
        page.goto(site.base + path)
        assert "owned" not in page.evaluate("document.title").replace("document.title='owned'", ""), path
        assert (
            page.evaluate("document.querySelectorAll('script, iframe, svg, style, [onload], [onerror]').length") == 0
        )
        assert page.evaluate("[...document.links].filter(a => !/^(https?|mailto):$/.test(a.protocol)).length") == 0, (
            path
        )
        assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert page.complaints == []
    assert elsewhere == []


def test_an_owner_signs_in_pauses_resumes_and_signs_out_with_a_real_browser(
    site: Site, marta: Account, page: Any
) -> None:
    """Browsers decide what `Origin` they send with a form by the page's Referrer-Policy: only they can show that ours
    lets our own forms through."""
    page.goto(site.login_link(marta))
    _shoot(page, "phone-sign-in")
    page.get_by_role("button", name="Sign in").click()
    assert page.url == f"{site.base}/owner"
    page.get_by_role("button", name="Pause bridging").click()
    held = site.bridge.ground.store.read_now(accounts.by_id, marta.id)
    assert held
    assert held.state is AccountState.PAUSED
    page.get_by_role("button", name="Resume bridging").click()
    assert page.get_by_text("Active").is_visible()
    page.get_by_role("link", name="Export").click()
    page.get_by_role("button", name="Make an archive").click()
    assert page.get_by_role("heading", name="Your archive is being made").is_visible()
    _shoot(page, "phone-export")
    page.goto(f"{site.base}/owner")
    page.get_by_role("button", name="Sign out", exact=True).click()
    assert page.get_by_role("heading", name="You are not signed in").is_visible()


def test_the_keyboard_reaches_the_content_first(site: Site, marta: Account, page: Any) -> None:
    page.goto(f"{site.base}/@marta")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_spoilers_open_without_javascript(site: Site, marta: Account, page: Any) -> None:
    page.goto(f"{site.base}/@marta/{site.numbers['spoiler']}")
    words = page.get_by_text("The gardener did it")
    assert not words.is_visible()
    page.get_by_text("Spoiler: show the post").click()
    assert words.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_every_page_fits_the_screen_and_has_its_landmarks(
    site: Site, marta: Account, browser: Any, size: str, scheme: str
) -> None:
    context = browser.new_context(viewport=PHONE if size == "phone" else DESKTOP, color_scheme=scheme)
    page = context.new_page()
    page.goto(site.login_link(marta))
    page.get_by_role("button", name="Sign in").click()
    paths = {
        "home": "/", "about": "/about", "profile": "/@marta", "picture": f"/@marta/{site.numbers['picture']}",
        "carousel": f"/@marta/{site.numbers['carousel']}", "thread": f"/@marta/{site.numbers['second']}",
        "tag": "/tags/streetphotography", "missing": "/nowhere", "owner": "/owner", "owner-posts": "/owner/posts",
        "owner-post": f"/owner/posts/{site.numbers['newest']}", "owner-deliveries": "/owner/deliveries",
        "owner-problems": "/owner/deliveries?show=problems", "owner-followers": "/owner/followers",
        "owner-replies": "/owner/replies", "owner-heard": "/owner/heard", "owner-export": "/owner/export",
        "owner-profile": "/owner/profile", "owner-domain": "/owner/domain", "owner-delete": "/owner/delete",
    }  # fmt: skip
    for name, path in paths.items():
        page.goto(site.base + path)
        assert page.evaluate(WIDER_THAN_THE_SCREEN) == [], path
        assert page.locator("main").count() == 1
        assert page.locator("h1").count() == 1, path
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.locator("img:not([alt])").count() == 0, path
        assert all(words.strip() for words in page.locator("button").all_text_contents()), path
        _shoot(page, f"{size}-{scheme}-{name}")
    context.close()
