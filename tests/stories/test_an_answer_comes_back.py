"""Answers from the Fediverse are kept, shown, edited and deleted by their authors, and by nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.rig import PUBLIC, Bridge, Stranger, eventually


def test_an_answer_is_kept_cleaned_and_listed(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    note = stranger.note(post, '<p>Nice <script>alert(1)</script><a href="javascript:x" onclick="y">one</a></p>')
    assert stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Create", note)).status_code == 202
    replies = eventually(lambda: (r := bridge.get(f"{post}/replies").json())["totalItems"] and r, seconds=5)
    assert replies["first"]["items"] == [note["id"]]
    page = bridge.get(bridge_page(bridge, post), accept="text/html").text
    assert "Nice" in page
    assert "alert(1)" not in page
    assert "javascript:" not in page


def bridge_page(bridge: Bridge, post: str) -> str:
    number = post.rsplit("/", 1)[1]
    return f"{bridge.base}/@alice/{number}"


def test_an_answer_to_an_answer_belongs_to_the_same_post(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    first = stranger.note(post)
    second = stranger.note(first["id"], "<p>And another thing</p>")
    for note in (first, second):
        stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Create", note))
    assert bridge.count("replies", post_id=int(post.rsplit("/", 1)[1])) == 2


def test_its_author_edits_and_deletes_it(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    note = stranger.note(post, "<p>first</p>")
    stranger.post(inbox, stranger.activity("Create", note))
    later = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    edited = {**note, "content": "<p>second</p>", "updated": later}
    assert stranger.post(inbox, stranger.activity("Update", edited)).status_code == 202
    assert bridge.count("replies", html="<p>second</p>") == 1
    # An older form that was late does not win.
    stranger.post(
        inbox, stranger.activity("Update", {**edited, "content": "<p>old</p>", "updated": note["published"]})
    )
    assert bridge.count("replies", html="<p>second</p>") == 1
    tombstone = {"id": note["id"], "type": "Tombstone"}
    assert stranger.post(inbox, stranger.activity("Delete", tombstone)).status_code == 202
    assert bridge.count("replies", deleted_at=None) == 0
    assert bridge.count("replies", html="") == 1


def test_a_delete_that_overtakes_its_create_wins(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    inbox = f"{bridge.base}/ap/inbox"
    # They are known to us, else their Delete would be forgotten.
    stranger.post(inbox, stranger.activity("Like", post))
    note = stranger.note(post)
    stranger.post(inbox, stranger.activity("Delete", note["id"]))
    stranger.post(inbox, stranger.activity("Create", note))
    assert bridge.count("replies") == 0


def test_a_private_answer_is_the_owners_alone(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    post = bridge.post(account)
    note = stranger.note(post, "<p>between us</p>", to=[bridge.ground.ids.actor(account.id)])
    stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Create", note))
    assert bridge.count("replies", public=False) == 1
    assert bridge.get(f"{post}/replies").json()["totalItems"] == 0
    assert "between us" not in bridge.get(bridge_page(bridge, post), accept="text/html").text


def test_a_deleted_actor_takes_everything_along(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
    inbox = f"{bridge.base}/ap/inbox"
    for activity in (
        stranger.activity("Follow", actor),
        stranger.activity("Like", post),
        stranger.activity("Create", stranger.note(post)),
    ):
        assert stranger.post(inbox, activity).status_code == 202
    stranger.gone = True
    farewell = stranger.activity("Delete", stranger.uri, to=[PUBLIC])
    assert stranger.post(inbox, farewell).status_code == 202
    assert bridge.count("followers", ended_at=None) == 0
    assert bridge.count("reactions", undone_at=None) == 0
    assert bridge.count("replies", deleted_at=None) == 0


def test_the_farewell_of_somebody_unknown_costs_nothing(bridge: Bridge, stranger: Stranger) -> None:
    before = bridge.everything()
    stranger.gone = True
    farewell = stranger.activity("Delete", stranger.uri, to=[PUBLIC])
    assert stranger.post(f"{bridge.base}/ap/inbox", farewell).status_code == 202
    assert bridge.everything() == before
    assert stranger.fetched == []


def test_a_poll_vote_is_no_answer(bridge: Bridge, stranger: Stranger) -> None:
    post = bridge.post(bridge.account())
    vote = {**stranger.note(post), "name": "Yes"}
    del vote["content"]
    assert stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Create", vote)).status_code == 202
    assert bridge.count("replies") == 0


def test_a_forwarded_answer_is_believed_only_as_its_origin_tells_it(bridge: Bridge, stranger: Stranger) -> None:
    """Mastodon passes answers on to the followers of a post, signed by whoever passes."""
    post = bridge.post(bridge.account())
    author = f"{stranger.base}/users/carol"
    note = {**stranger.note(post, "<p>what carol said</p>"), "attributedTo": author}
    said = {**stranger.activity("Create", note), "actor": author}
    inbox = f"{bridge.base}/ap/inbox"
    # Nothing at the origin: refused.
    before = bridge.everything()
    assert stranger.post(inbox, said).status_code in (401, 403)
    assert bridge.everything() == before
    # The origin tells something else: that is what counts.
    stranger.objects[note["id"]] = {**note, "content": "<p>what carol really said</p>"}
    stranger.objects[author] = {**stranger.actor(), "id": author, "publicKey": {
        "id": f"{author}#main-key", "owner": author, "publicKeyPem": stranger.key.public_pem}}  # fmt: skip
    assert stranger.post(inbox, said).status_code in (202, 401, 403)
