"""The public pages: what people see, what caches and previews are told, and nothing that anybody smuggled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser.site import MALICE, Site, furnish, malicious, running_site
from tests.rig import Bridge

from threadbridge.domain.accounts import Account, AccountState
from threadbridge.storage import accounts, posts
from threadbridge.web.render import template_folder, web_url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("pages"), operator_contact="ops@bridge.example") as running:
        yield running


@pytest.fixture(scope="module")
def marta(site: Site) -> Account:
    return furnish(site)


def test_the_start_page_lists_accounts_and_says_how_to_follow(site: Site, marta: Account) -> None:
    page = site.get("/")
    assert page.status_code == 200
    assert f"@marta@{site.bridge.authority}" in page.text
    assert 'href="' + site.base + '/@marta"' in page.text
    about = site.get("/about")
    assert "mailto:ops@bridge.example" in about.text


def test_a_profile_shows_who_it_is_and_how_to_follow(site: Site, marta: Account) -> None:
    page = site.get("/@marta")
    ids = site.bridge.ground.ids
    assert page.status_code == 200
    assert page.headers["vary"] == "Accept"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f'<{ids.actor(marta.id)}>; rel="alternate"; type="application/activity+json"' in page.headers["link"]
    for expected in (
        f'<link rel="alternate" type="application/activity+json" href="{ids.actor(marta.id)}">',
        f'type="application/atom+xml" title="Marta Lindqvist (Atom)" href="{site.base}/@marta/feed.atom">',
        f'type="application/feed+json" title="Marta Lindqvist (JSON Feed)" href="{site.base}/@marta/feed.json">',
        'rel="me noopener" href="https://www.threads.com/@marta"',
        f'<meta name="fediverse:creator" content="@marta@{site.bridge.authority}">',
        '<meta property="og:type" content="profile">',
        f'<code class="copy">@marta@{site.bridge.authority}</code>',
        "<strong>4</strong> followers",
        'alt="A harbour at sunrise: cranes, a ferry, flat water"',
        "Profile at Threads",
    ):
        assert expected in page.text, expected
    assert "noindex" not in page.text


def test_handles_are_found_whatever_their_case(site: Site, marta: Account) -> None:
    assert '<link rel="canonical" href="' + site.base + '/@marta">' in site.get("/@Marta").text


def test_a_post_page_shows_pictures_with_their_descriptions_and_the_answers(site: Site, marta: Account) -> None:
    page = site.get(f"/@marta/{site.numbers['picture']}")
    ids = site.bridge.ground.ids
    assert page.status_code == 200
    assert '<figcaption dir="auto">A harbour at sunrise' in page.text
    assert '<meta name="twitter:card" content="summary_large_image">' in page.text
    assert re.search(r'<meta property="og:image" content="http://[^"]+/media/[0-9a-f]{64}\.jpg">', page.text)
    assert f'href="{ids.post(marta.id, site.numbers["picture"])}"' in page.text
    assert "What a light!" in page.text
    assert "Only for you" not in page.text, "an answer that is not public is on a public page"
    assert "4 likes" in page.text
    assert "1 boost" in page.text


def test_a_thread_is_shown_in_order_around_each_of_its_posts(site: Site, marta: Account) -> None:
    for name in ("first", "second", "third"):
        page = site.get(f"/@marta/{site.numbers[name]}").text
        places = [page.index(words) for words in ("1/3</p>", "2/3</p>", "3/3</p>")]
        assert places == sorted(places)
        assert page.index('aria-current="true"') < places[("first", "second", "third").index(name)]


def test_spoilers_and_sensitive_pictures_wait_behind_a_summary(site: Site, marta: Account) -> None:
    page = site.get(f"/@marta/{site.numbers['spoiler']}")
    head = page.text.partition("</head>")[0]
    assert "gardener" not in head, "the spoiler is in the preview"
    assert page.text.index("<summary>Spoiler") < page.text.index("The gardener")
    hidden = site.get(f"/@marta/{site.numbers['sensitive']}").text
    assert "/media/" not in hidden.partition("</head>")[0].replace('og:image" content="' + _avatar(site, marta), "")
    assert hidden.index("<summary>Sensitive") < hidden.index("Broken branches")


def _avatar(site: Site, account: Account) -> str:
    held = site.bridge.ground.store.read_now(accounts.by_id, account.id)
    assert held
    assert held.avatar
    assert held.avatar_type
    return site.bridge.ground.ids.media(held.avatar, held.avatar_type)


def test_a_poll_has_bars_and_a_quote_names_its_post(site: Site, marta: Account) -> None:
    poll = site.get(f"/@marta/{site.numbers['poll']}").text
    assert '<meter min="0" max="140" value="81" aria-label="Share of the votes">' in poll
    assert "58 % · 81 votes" in poll
    quote = site.get(f"/@marta/{site.numbers['quote']}").text
    assert f'<blockquote class="quote" cite="{site.base}/@marta/{site.numbers["picture"]}">' in quote


def test_a_hashtag_page_lists_posts_whatever_the_case(site: Site, marta: Account) -> None:
    for path in ("/tags/streetphotography", "/tags/StreetPhotography"):
        assert f'id="p{site.numbers["carousel"]}"' in site.get(path).text
    assert site.get("/tags/nothing").status_code == 404


def test_an_unchanged_page_is_answered_304(site: Site, marta: Account) -> None:
    for path in ("/", "/about", "/style.css", "/@marta", f"/@marta/{site.numbers['poll']}", "/tags/gothenburg"):
        first = site.get(path)
        etag = first.headers["etag"]
        assert etag.startswith('"'), "the ETag is weak"
        again = site.get(path, **{"If-None-Match": f'"other", W/{etag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert "max-age" in again.headers["cache-control"]
        assert site.get(path, **{"If-None-Match": '"other"'}).status_code == 200


def test_pages_carry_the_guards_and_load_nothing_from_elsewhere(site: Site, marta: Account) -> None:
    for path in ("/", "/about", "/@marta", f"/@marta/{site.numbers['carousel']}", "/owner", "/nowhere"):
        page = site.get(path)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "<script" not in page.text
        assert " style=" not in page.text
        for address in re.findall(
            r'<(?:img|video|audio|link rel="stylesheet")[^>]* (?:src|href)="([^"]+)"', page.text
        ):
            assert address.startswith((site.base + "/", "/")), address


def test_what_is_not_there_is_said_and_what_is_gone_too(site: Site, marta: Account) -> None:
    for path in ("/@nobody", "/@marta/999999", "/@marta/0", "/@marta/007", "/@marta/", "/tags/"):
        answer = site.get(path)
        assert answer.status_code == 404, path
        assert "<h1>" in answer.text
    account = site.bridge.account("leaving")
    number = site.post(account, "Goodbye")
    other = site.post(account, "Still here")
    site.write(posts.bury, account.id, number)
    assert site.get(f"/@leaving/{number}").status_code == 410
    assert site.get(f"/@leaving/{other}").status_code == 200
    assert site.get(f"/@marta/{other}").status_code == 404, "a post under another account's address"
    site.write(accounts.set_state, account.id, AccountState.GONE, "test")
    for path in ("/@leaving", f"/@leaving/{other}", "/@leaving/feed.atom", "/@leaving/feed.json"):
        assert site.get(path).status_code == 410, path
    assert "@leaving" not in site.get("/").text


def test_an_account_that_is_not_to_be_searched_is_kept_from_search_engines(site: Site) -> None:
    account = site.bridge.account("shy")
    number = site.post(account, "Psst")
    site.write(accounts.set_choices, account.id, indexable=False, discoverable=False)
    for path in ("/@shy", f"/@shy/{number}"):
        page = site.get(path)
        assert '<meta name="robots" content="noindex">' in page.text
        assert page.headers["x-robots-tag"] == "noindex"
    assert "@shy" not in site.get("/").text


@pytest.mark.parametrize("place", ["x", "1-", "-1-1", "1-1;DROP", "9" * 30 + "-1", "1-" + "9" * 40, "١-١"])
def test_a_place_that_we_never_gave_out_is_a_clear_400(site: Site, marta: Account, place: str) -> None:
    answer = site.get(f"/@marta?before={place}")
    assert answer.status_code == 400
    assert "<h1>" in answer.text


def test_pages_of_a_profile_hold_every_post_once(bridge: Bridge) -> None:
    """On both databases; many posts share one second."""
    site = Site(bridge)
    account = site.bridge.account("busy")
    numbers = [site.post(account, f"Post {index} #many", minutes=index // 7) for index in range(47)]
    for path, limit in (("/@busy", 3), ("/tags/many", 3)):
        seen: list[int] = []
        address: str | None = path
        pages = 0
        while address:
            page = site.get(address)
            assert page.status_code == 200
            seen += [int(number) for number in re.findall(r'<article class="post [^"]*" id="p(\d+)"', page.text)]
            following = re.search(r'<a rel="next" href="([^"]+)"', page.text)
            address = following[1] if following else None
            pages += 1
        assert seen == sorted(numbers, key=lambda number: (numbers.index(number) // 7, number), reverse=True)
        assert pages == limit


def test_answers_are_paged_completely(bridge: Bridge) -> None:
    site = Site(bridge)
    account = site.bridge.account("loved")
    number = site.post(account, "Say something")
    peer = site.peer(1)
    for index in range(123):
        site.answer(account, number, peer, f"<p>answer-{index}.</p>", number=index)
    seen: list[str] = []
    address: str | None = f"/@loved/{number}"
    while address:
        page = site.get(address)
        seen += re.findall(r"answer-(\d+)\.", page.text)
        following = re.search(r'<a rel="next" href="([^"]+)"', page.text)
        address = following[1] if following else None
    assert seen == [str(index) for index in range(123)]


def test_no_template_switches_escaping_off() -> None:
    for path in template_folder().rglob("*"):
        if path.is_file():
            source = path.read_text()
            assert not re.search(r"\|\s*safe\b|autoescape|Markup", source), path


def test_addresses_of_other_schemes_are_no_links() -> None:
    for address in (
        "javascript:alert(1)",
        "data:text/html,x",
        "//host/x",
        "mailto:a@b",
        "http:",
        "",
        None,
        "http://[x",
    ):
        assert web_url(address) == ""
    assert web_url("https://example.org/x?y=1#z") == "https://example.org/x?y=1#z"


def test_what_anybody_smuggled_in_stays_text(site: Site) -> None:
    """Without a browser: no element or attribute of an attack is in the source. (tests/browser looks with one.)"""
    account = malicious(site)
    for path in ("/", "/@mallory", *(f"/@mallory/{site.numbers[f'attack{n}']}" for n in range(len(MALICE)))):
        page = site.get(path)
        assert page.status_code == 200, path
        _harmless(page.text)
    with site.signed_in(account) as client:
        for path in (
            "/owner",
            "/owner/posts",
            f"/owner/posts/{site.numbers['attack0']}",
            "/owner/deliveries?show=problems",
            "/owner/replies",
            "/owner/followers",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, path
            _harmless(answer.text)


def _harmless(html: str) -> None:
    lowered = html.lower()
    for element in ("<script", "<svg", "<iframe", "<style", "<img src=x"):
        assert element not in lowered, element
    for tag in re.findall(r"<[a-z][^<>]*>", lowered):
        assert not re.search(r'(?:href|src|action|cite)="\s*(?:javascript|data):', tag), tag
        outside = re.sub(r'"[^"]*"', '""', tag)
        assert not re.search(r"\son[a-z]+\s*=", outside), tag
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49 ", html), "a template was evaluated"


def test_templates_are_found_beside_the_package_or_in_the_checkout() -> None:
    assert (template_folder() / "owner" / "overview.html").is_file()
    assert isinstance(template_folder(), Path)
