"""On the owner's pages: who waits is let in or turned away, who follows is removed, mentions and emoji are shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.browser.site import Site, running_site
from tests.rig import PUBLIC, Served, Stranger, eventually, free_socket
from tests.stories.test_an_owner_shapes_the_profile import Owner


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("followers")) as running:
        yield running


@pytest.fixture(scope="module")
def bob(site: Site) -> Iterator[Stranger]:
    sock = free_socket()
    somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(site.bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def test_requests_are_decided_in_forms(site: Site, bob: Stranger) -> None:
    owner = Owner(site, site.bridge.account("carefulowner"))
    home = "/owner/followers"
    actor = site.bridge.ground.ids.actor(owner.account.id)
    assert "Everybody may follow." in owner.see(home)
    before = site.bridge.everything()
    assert owner.send(f"{home}/approval", home, forged=True, by_hand="yes").status_code == 403
    assert owner.send(f"{home}/approval", home, by_hand="perhaps").status_code == 400
    assert site.bridge.everything() == before
    assert owner.send(f"{home}/approval", home, by_hand="yes").status_code == 303
    assert "by hand" in owner.see(home)

    bob.post(f"{actor}/inbox", bob.activity("Follow", actor))
    page = owner.see(home)
    assert "1 person waits to follow" in page
    assert bob.uri in page
    before = site.bridge.everything()
    for path in ("approve", "reject", "remove"):
        assert owner.send(f"{home}/{path}", home, forged=True, person=bob.uri).status_code == 403
        assert owner.send(f"{home}/{path}", home, person="https://else.example/users/x").status_code == 404
    # Another owner decides nothing here.
    other = Owner(site, site.bridge.account("otherowner"))
    before = site.bridge.everything()
    assert other.send(f"{home}/approve", home, person=bob.uri).status_code == 404
    assert site.bridge.everything() == before
    assert owner.send(f"{home}/approve", home, person=bob.uri).status_code == 303
    assert "waits to follow" not in owner.see(home)
    assert "1 follower" in owner.see(home)
    assert owner.send(f"{home}/remove", home, person=bob.uri).status_code == 303
    bob.post(f"{actor}/inbox", bob.activity("Follow", actor))
    assert owner.send(f"{home}/reject", home, person=bob.uri).status_code == 303
    assert site.bridge.count("follow_requests", account_id=owner.account.id, ended_at=None) == 0


def test_mentions_and_emoji_are_shown_harmless(site: Site, bob: Stranger) -> None:
    owner = Owner(site, site.bridge.account("mentionedowner"))
    actor, inbox = site.bridge.ground.ids.actor(owner.account.id), f"{site.base}/ap/inbox"
    post = site.bridge.post(owner.account, "likeable")
    assert "Nobody has mentioned you yet" in owner.see("/owner/mentions")
    note = bob.note(None, "<p>Look, @mentionedowner<script>alert(7)</script></p>", to=[PUBLIC], cc=[actor])
    bob.post(inbox, bob.activity("Create", note))
    bob.post(inbox, bob.activity("EmojiReact", post, content="🦊"))
    page = eventually(lambda: (seen := owner.see("/owner/mentions")) and "Look, @mentionedowner" in seen and seen)
    assert "alert(7)" not in page
    assert "🦊" in owner.see("/owner/heard")
    assert "🦊" in owner.see("/owner")
