"""Activities, posts and actors from other servers: the shapes that each software sends, and what none may say."""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.ids import PUBLIC
from threadbridge.errors import Invalid

AS = "https://www.w3.org/ns/activitystreams"
BOB = "https://remote.example/users/bob"
EVE = "https://remote.example/users/eve"
FAR = "https://elsewhere.example/users/eve"
OURS = "https://bridge.example/ap/users/1"
POST = f"{OURS}/posts/42"
NOTE_ID = f"{BOB}/statuses/1"
PEM = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"


def activity(kind: str, made: Any, **more: Any) -> dict[str, Any]:
    return {"@context": AS, "id": f"{BOB}#{kind}/1", "type": kind, "actor": BOB, "object": made, **more}


def note(**more: Any) -> dict[str, Any]:
    return {"id": NOTE_ID, "type": "Note", "attributedTo": BOB, "content": "<p>Hi</p>", "to": [PUBLIC], **more}


def actor(**more: Any) -> dict[str, Any]:
    return {
        "@context": [AS, "https://w3id.org/security/v1"],
        "id": BOB,
        "type": "Person",
        "preferredUsername": "bob",
        "inbox": f"{BOB}/inbox",
        "publicKey": {"id": f"{BOB}#main-key", "owner": BOB, "publicKeyPem": PEM},
        **more,
    }


def read(made: dict[str, Any]) -> incoming.Activity:
    """By way of bytes, as everything arrives."""
    return incoming.read(document.decode(json.dumps(made).encode()))


def received(made: dict[str, Any]) -> incoming.IncomingNote:
    read_back = read(made)
    assert isinstance(read_back, (incoming.Create, incoming.Update))
    assert read_back.note is not None
    return read_back.note


def refused(made: dict[str, Any]) -> str:
    with pytest.raises(Invalid) as caught:
        read(made)
    return caught.value.public


# ── one verb after the other ─────────────────────────────────────────────────────────────────────────────────────


def test_simple_verbs() -> None:
    assert read(activity("Follow", OURS)) == incoming.Follow(f"{BOB}#Follow/1", BOB, OURS)
    assert read(activity("Like", POST)) == incoming.Like(f"{BOB}#Like/1", BOB, POST)
    assert read(activity("Announce", POST)) == incoming.Announce(f"{BOB}#Announce/1", BOB, POST)
    assert read(activity("Block", OURS)) == incoming.Block(f"{BOB}#Block/1", BOB, OURS)
    assert read(activity("Delete", NOTE_ID)) == incoming.Delete(f"{BOB}#Delete/1", BOB, NOTE_ID)


@pytest.mark.parametrize("kind", ["Follow", "Like", "Announce", "Block", "Delete"])
def test_objects_and_actors_may_be_embedded_but_not_listed(kind: str) -> None:
    # One may delete at home only; about everything else one may speak anywhere.
    about = NOTE_ID if kind == "Delete" else POST
    plain = read(activity(kind, about))
    assert read(activity(kind, {"id": about, "type": "Note", "content": "not believed"})) == plain
    assert read(activity(kind, about, actor={"id": BOB, "type": "Person", "name": "not believed"})) == plain
    shapes: tuple[Any, ...] = (
        None,
        "",
        [],
        [POST],
        {},
        {"id": [POST]},
        {"id": {"id": POST}},
        1,
        "acct:a@b.example",
        "//b.example/1",
    )
    for wrong in shapes:
        assert "object must be one" in refused(activity(kind, wrong))
        if wrong != [POST]:
            assert "actor must be one" in refused(activity(kind, POST, actor=wrong))
    # A list of one is what some write for one actor.
    assert read(activity(kind, about, actor=[BOB])) == plain
    if kind == "Delete":
        assert "not on the server" in refused(activity(kind, POST))


def test_what_reactions_look_like_elsewhere() -> None:
    misskey = activity("Like", POST, content=":blobcat:", _misskey_reaction=":blobcat:", tag=[{"type": "Emoji"}])
    pleroma = activity("EmojiReact", POST, content="🔥", to=[OURS], cc=["as:Public"])
    for made in (misskey, pleroma):
        assert isinstance(read(made), incoming.Like)


def test_threads_follows_and_likes() -> None:
    threads = "https://threads.net/ap/users/17841400000000001/"
    made = activity("Like", POST, actor=threads, id=f"{threads}#likes/1")
    assert read(made) == incoming.Like(f"{threads}#likes/1", threads, POST)


NAMELESS: list[Any] = [[OURS, POST], {"type": "Follow"}, None, 7]
"""Objects that name nothing by an id. Misskey embeds what it accepts like this."""


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        *((kind, made) for kind in ("Dislike", "View", "Arrive") for made in [OURS, *NAMELESS]),
        *((kind, made) for kind in ("Accept", "Reject", "Add", "Remove") for made in NAMELESS),
    ],
)
def test_anything_else_is_only_named(kind: str, made: Any) -> None:
    assert read(activity(kind, made)) == incoming.Other(f"{BOB}#{kind}/1", BOB, kind)


def test_names_that_somebody_made_up_are_one_name() -> None:
    for name in ("Frobnicate", "x" * 40, "Person"):
        assert read({**activity("View", OURS), "type": name}) == incoming.Other(f"{BOB}#View/1", BOB, "Activity")


def test_answers_to_what_we_said() -> None:
    asked = f"{OURS}#quote-requests/1"
    plain = incoming.Answer(f"{BOB}#Accept/1", BOB, True, asked, None, None)
    assert read(activity("Accept", asked)) == plain
    embedded = {"id": asked, "type": "QuoteRequest", "actor": OURS, "object": NOTE_ID}
    stamp = f"{BOB}/stamps/1"
    assert read(activity("Accept", embedded, result=stamp)) == dataclasses.replace(
        plain, inner_kind="QuoteRequest", result=stamp
    )
    assert read(activity("Accept", asked, result={"id": stamp, "type": "QuoteAuthorization"})) == dataclasses.replace(
        plain, result=stamp
    )
    assert read(activity("Accept", asked, result=[stamp])) == plain
    assert read(activity("Reject", asked)) == incoming.Answer(f"{BOB}#Reject/1", BOB, False, asked, None, None)


def test_what_is_put_into_collections() -> None:
    featured = f"{BOB}/featured"
    added = incoming.Arrange(f"{BOB}#Add/1", BOB, True, POST, featured)
    assert read(activity("Add", POST, target=featured)) == added
    assert read(activity("Add", {"id": POST}, target={"id": featured})) == added
    assert read(activity("Add", POST)) == dataclasses.replace(added, target=None)
    assert read(activity("Remove", POST, target=featured)) == dataclasses.replace(
        added, id=f"{BOB}#Remove/1", added=False
    )


def test_who_moves() -> None:
    new = "https://elsewhere.example/users/robert"
    moved = incoming.Move(f"{BOB}#Move/1", BOB, new)
    assert read(activity("Move", BOB, target=new)) == moved
    assert read(activity("Move", {"id": BOB, "type": "Person"}, target={"id": new})) == moved
    for other in (EVE, OURS, new):
        assert "Only an actor itself" in refused(activity("Move", other, target=new))
    for wrong in NAMELESS:
        assert "object must be one" in refused(activity("Move", wrong, target=new))
        assert "target must be one" in refused(activity("Move", BOB, target=wrong))
    assert "move to itself" in refused(activity("Move", BOB, target=BOB))


@pytest.mark.parametrize("field", ["id", "type", "actor", "@context"])
def test_what_every_activity_needs(field: str) -> None:
    made = activity("Follow", OURS)
    del made[field]
    refused(made)
    shapes: tuple[Any, ...] = (None, [], ["Follow", "Like"], {}, 1, "")
    for wrong in shapes:
        refused({**activity("Follow", OURS), field: wrong})


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "http://remote.example", "https://remote.example:8443"]
)
def test_an_activity_lives_on_its_actors_server(origin: str) -> None:
    for kind in ("Follow", "Like", "Undo", "Delete", "Accept"):
        assert "not on the same server" in refused(activity(kind, POST, id=f"{origin}/1"))


def test_same_origin() -> None:
    assert incoming.same_origin("https://a.example/1", "https://A.example:443/2")
    assert not incoming.same_origin("https://a.example/1", "https://b.example/1")
    assert not incoming.same_origin("x", "x")


# ── undo ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_undo_by_id_embedded_and_without_id() -> None:
    inner_id = f"{BOB}#follows/1"
    inner = {"id": inner_id, "type": "Follow", "actor": BOB, "object": OURS}
    outer = f"{BOB}#Undo/1"
    assert read(activity("Undo", inner_id)) == incoming.UndoOf(outer, BOB, inner_id, None, None)
    assert read(activity("Undo", inner)) == incoming.UndoOf(outer, BOB, inner_id, "Follow", OURS)
    transient = {"type": "EmojiReact", "actor": {"id": BOB}, "object": {"id": POST}}
    assert read(activity("Undo", transient)) == incoming.UndoOf(outer, BOB, None, "Like", POST)
    flag = {"id": inner_id, "type": "Flag", "object": [OURS, POST]}
    assert read(activity("Undo", flag)) == incoming.UndoOf(outer, BOB, inner_id, "Flag", None)


@pytest.mark.parametrize(
    "inner",
    [
        None,
        [],
        [f"{BOB}#follows/1"],
        {},
        {"type": "Follow"},
        {"object": OURS},
        {"type": ["Follow", "Like"], "object": OURS},
        {"type": "Follow", "object": OURS, "actor": EVE},
        {"type": "Follow", "object": OURS, "actor": FAR},
        {"type": "Follow", "object": OURS, "actor": [BOB]},
        {"id": f"{FAR}#follows/1", "type": "Follow", "object": OURS, "actor": BOB},
        {"id": 7, "type": "Follow", "object": OURS, "actor": BOB},
        f"{FAR}#follows/1",
        "follow",
    ],
)
def test_nobody_undoes_what_is_not_his(inner: Any) -> None:
    refused(activity("Undo", inner))


# ── create and update ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reply_from_mastodon() -> None:
    made = note(
        inReplyTo=POST,
        published="2026-10-05T15:00:00Z",
        updated="2026-10-05T15:10:00Z",
        url="https://remote.example/@bob/1",
        cc=[f"{BOB}/followers", OURS],
        contentMap={"de": "<p>Hi</p>"},
        attachment=[
            {"type": "Document", "mediaType": "image/png", "url": "https://remote.example/1.png", "name": None}
        ],
        tag=[{"type": "Mention", "href": OURS, "name": "@frank@bridge.example"}],
        summary=None,
        sensitive=False,
    )
    assert received(activity("Create", made)) == incoming.IncomingNote(
        id=NOTE_ID,
        kind="Note",
        author=BOB,
        html="<p>Hi</p>",
        in_reply_to=POST,
        published=datetime(2026, 10, 5, 15, tzinfo=UTC),
        updated=datetime(2026, 10, 5, 15, 10, tzinfo=UTC),
        url="https://remote.example/@bob/1",
        to=(PUBLIC,),
        cc=(f"{BOB}/followers", OURS),
        public=True,
        name=None,
        language="de",
        attachments=1,
        mentioned=(OURS,),
    )


def test_a_post_from_threads() -> None:
    author = "https://threads.net/ap/users/17841400000000001/"
    made = {
        "id": f"{author}post/17955322232962801/",
        "type": "Note",
        "attributedTo": author,
        "content": "Hello",
        "published": "2026-10-05T15:00:00+0000",
        "to": ["as:Public"],
        "cc": [f"{author}followers/"],
        "url": [
            {"type": "Link", "href": "threads://post/abc", "mediaType": "application/x-threads"},
            {"type": "Link", "href": "https://www.threads.net/@frank/post/abc", "mediaType": "text/html"},
        ],
        "attachment": [],
        "inReplyTo": POST,
    }
    got = received(activity("Create", made, actor=author, id=f"{author}post/17955322232962801/activity/"))
    assert (got.public, got.to) == (True, (PUBLIC,))
    assert got.url == "https://www.threads.net/@frank/post/abc"
    assert got.published == datetime(2026, 10, 5, 15, tzinfo=UTC)


def test_a_poll_vote_has_a_name_and_no_content() -> None:
    made = note(name="Yes", inReplyTo=POST, to=OURS)
    del made["content"]
    got = received(activity("Create", made))
    assert (got.name, got.html, got.public) == ("Yes", "", False)


def test_a_peertube_video_is_not_read_but_its_author_is_checked() -> None:
    made = {
        "id": f"{BOB}/v/1",
        "type": "Video",
        "attributedTo": [{"type": "Group", "id": EVE}, {"type": "Person", "id": BOB}],
    }
    got = read(activity("Create", made))
    assert got == incoming.Create(f"{BOB}#Create/1", BOB, f"{BOB}/v/1", "Video", None)
    made["attributedTo"] = EVE
    assert "attributed" in refused(activity("Create", made))


def test_objects_that_are_only_named_are_not_read() -> None:
    assert read(activity("Create", NOTE_ID)) == incoming.Create(f"{BOB}#Create/1", BOB, NOTE_ID, None, None)
    assert read(activity("Update", NOTE_ID)) == incoming.Update(f"{BOB}#Update/1", BOB, NOTE_ID, None, None)
    for kind, made in itertools.product(("Create", "Update"), (FAR, {"id": f"{FAR}/1", "type": "Video"})):
        assert "not on the server of the actor" in refused(activity(kind, made))
    chat = {"id": NOTE_ID, "type": "ChatMessage", "content": "x", "actor": BOB}
    assert read(activity("Create", chat)) == incoming.Create(f"{BOB}#Create/1", BOB, NOTE_ID, "ChatMessage", None)


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_the_product_of_who_could_speak_for_whom(kind: str) -> None:
    """Only the actor's own object, by himself, in an activity of his server; everything else is refused."""
    accepted = 0
    hosts = {"own": BOB, "other user": EVE, "other host": FAR}
    for who, what, whose in itertools.product(hosts.values(), repeat=3):
        made = activity(kind, note(id=f"{what}/statuses/1", attributedTo=whose), id=f"{who}#x")
        allowed = who != FAR and what != FAR and whose == BOB
        if allowed:
            assert received(made).author == BOB
            accepted += 1
        else:
            refused(made)
    assert accepted == 4


@pytest.mark.parametrize(
    "attributed", [None, [], "", [EVE, BOB], [[BOB]], 7, {"name": "bob"}, {"type": "Person", "id": EVE}, FAR]
)
def test_a_post_needs_its_author(attributed: Any) -> None:
    refused(activity("Create", note(attributedTo=attributed)))


@pytest.mark.parametrize("attributed", [BOB, [BOB], {"id": BOB}, [{"type": "Person", "id": BOB}], [BOB, EVE]])
def test_shapes_of_an_author(attributed: Any) -> None:
    assert received(activity("Create", note(attributedTo=attributed))).author == BOB


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (POST, POST),
        ([POST], POST),
        ({"id": POST, "type": "Note"}, POST),
        ([{"id": POST}], POST),
        (None, None),
        ([], None),
        ("", None),
        ("tag:remote.example,2017:objectId=1", None),
    ],
)
def test_shapes_of_in_reply_to(value: Any, expected: str | None) -> None:
    assert received(activity("Create", note(inReplyTo=value))).in_reply_to == expected


@pytest.mark.parametrize("value", [[POST, POST], [POST, None], 7, {}, {"id": 7}, [[POST]]])
def test_an_answer_to_several_things_is_none(value: Any) -> None:
    assert "inReplyTo" in refused(activity("Create", note(inReplyTo=value)))


@pytest.mark.parametrize(
    ("to", "cc", "public"),
    [
        (PUBLIC, None, True),
        ([PUBLIC], [], True),
        ("Public", None, True),
        ([OURS], "as:Public", True),
        ([f"{BOB}/followers"], [OURS], False),
        (OURS, None, False),
        (None, PUBLIC + "x", False),
    ],
)
def test_visibility(to: Any, cc: Any, public: bool) -> None:
    assert received(activity("Create", note(to=to, cc=cc))).public is public


def test_a_post_without_audience_has_that_of_its_activity() -> None:
    bare = note()
    del bare["to"]
    assert received(activity("Create", bare, to=[PUBLIC], cc=OURS)).public
    assert not received(activity("Create", bare, to=[OURS])).public
    assert not received(activity("Create", bare)).public
    assert not received(activity("Create", note(to=[OURS]), to=[PUBLIC])).public


@pytest.mark.parametrize(
    ("content", "mapped", "expected"),
    [
        ("a", None, ("a", None)),
        ("a", {"en": "a"}, ("a", "en")),
        ("a", {"de": "b", "en": "a"}, ("a", "en")),
        ("a", {"de": "b"}, ("a", None)),
        (None, {"pt-BR": "b", "en": "a"}, ("b", "pt-BR")),
        (None, {"<script>": "b"}, ("", None)),
        (None, ["a"], ("", None)),
        (None, None, ("", None)),
        (7, {"en": 7}, ("", None)),
    ],
)
def test_content_and_language(content: Any, mapped: Any, expected: tuple[str, str | None]) -> None:
    got = received(activity("Create", note(content=content, contentMap=mapped)))
    assert (got.html, got.language) == expected


def test_attachments_are_counted_in_every_shape() -> None:
    for value, count in ((None, 0), ({}, 1), ([{}, {}, "x", None], 2), ("x", 0)):
        assert received(activity("Create", note(attachment=value))).attachments == count


def test_times_that_cannot_be_read_are_left_out() -> None:
    got = received(activity("Create", note(published="soon", updated=7)))
    assert (got.published, got.updated) == (None, None)


@pytest.mark.parametrize("kind", sorted(incoming.NOTE_KINDS))
def test_kinds_of_posts(kind: str) -> None:
    assert received(activity("Update", note(type=kind))).kind == kind


def test_a_fetched_note_is_read_too_but_nothing_else() -> None:
    assert incoming.read_note(note()).author == BOB
    with pytest.raises(Invalid, match="not a post"):
        incoming.read_note(note(type="Person"))
    with pytest.raises(Invalid, match="server of the actor"):
        incoming.read_note(note(attributedTo=FAR))


# ── actors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_actor_from_threads() -> None:
    me = "https://threads.net/ap/users/17841400000000001/"
    got = incoming.read_actor(
        {
            "@context": [AS, "https://w3id.org/security/v1", {"toot": "http://joinmastodon.org/ns#"}],
            "id": me,
            "type": "Person",
            "preferredUsername": "frank",
            "name": "Frank",
            "summary": "",
            "url": "https://www.threads.net/@frank",
            "inbox": f"{me}inbox/",
            "outbox": f"{me}outbox/",
            "endpoints": {"sharedInbox": "https://threads.net/ap/inbox/"},
            "publicKey": {"id": f"{me}#main-key", "owner": me, "publicKeyPem": PEM},
            "icon": {"type": "Image", "url": "https://scontent.cdninstagram.com/v/a.jpg?x=1"},
            "manuallyApprovesFollowers": False,
        }
    )
    assert got == incoming.IncomingActor(
        id=me,
        kind="Person",
        preferred_username="frank",
        name="Frank",
        inbox=f"{me}inbox/",
        shared_inbox="https://threads.net/ap/inbox/",
        url="https://www.threads.net/@frank",
        key_id=f"{me}#main-key",
        key_pem=PEM,
        keys=(incoming.IncomingKey(f"{me}#main-key", PEM),),
        moved_to=None,
        also_known_as=(),
        icon="https://scontent.cdninstagram.com/v/a.jpg?x=1",
    )


@pytest.mark.parametrize("kind", sorted(incoming.ACTOR_KINDS))
def test_kinds_of_actors(kind: str) -> None:
    assert incoming.read_actor(actor(type=kind)).kind == kind


def test_odd_shapes_of_actors() -> None:
    got = incoming.read_actor(
        actor(
            preferredUsername=None,
            name="Bob\n\u0000<b>" + "x" * 3000,
            url=[{"type": "Link", "href": "https://remote.example/@bob", "mediaType": "text/html"}],
            endpoints=None,
            movedTo={"id": FAR},
            alsoKnownAs=FAR,
            icon=[{"type": "Image", "url": [{"type": "Link", "href": "https://remote.example/a.png"}]}],
            inbox="https://remote.example/ü",
        )
    )
    assert got.preferred_username == ""
    assert got.name.startswith("Bob <b>x")
    assert len(got.name) == 2048
    assert got.url == "https://remote.example/@bob"
    assert (got.shared_inbox, got.moved_to, got.also_known_as) == (None, FAR, (FAR,))
    assert got.icon == "https://remote.example/a.png"
    assert got.inbox == "https://remote.example/%C3%BC"


def test_lists_of_keys_and_the_gotosocial_key_id() -> None:
    keys = [
        {"id": f"{BOB}/main-key", "owner": BOB, "publicKeyPem": PEM},
        {"id": f"{BOB}#second", "controller": BOB, "publicKeyPem": PEM + "x"},
        {"id": f"{BOB}#third", "type": "Multikey", "publicKeyMultibase": "z6Mk"},
    ]
    got = incoming.read_actor(actor(publicKey=keys))
    assert (got.key_id, [key.id for key in got.keys]) == (f"{BOB}/main-key", [f"{BOB}/main-key", f"{BOB}#second"])


@pytest.mark.parametrize(
    "change",
    [
        {"@context": "https://w3id.org/security/v1"},
        {"type": "Note"},
        {"type": ["Person", "Service"]},
        {"type": None},
        {"id": [BOB]},
        {"id": None},
        {"inbox": None},
        {"inbox": ""},
        {"inbox": "javascript:alert(1)"},
        {"inbox": "file:///etc/passwd"},
        {"inbox": [f"{BOB}/inbox"]},
        {"inbox": {"id": f"{BOB}/inbox"}},
        {"inbox": "https://user@remote.example/inbox"},
        {"endpoints": {"sharedInbox": "ftp://remote.example/"}},
        {"endpoints": {"sharedInbox": {"id": f"{BOB}/inbox"}}},
        {"endpoints": {"sharedInbox": [f"{BOB}/inbox"]}},
        {"publicKey": None},
        {"publicKey": []},
        {"publicKey": f"{BOB}#main-key"},
        {"publicKey": {"id": f"{BOB}#k", "owner": BOB}},
        {"publicKey": {"id": f"{BOB}#k", "owner": BOB, "publicKeyPem": ["x"]}},
        {"publicKey": {"id": f"{BOB}#k", "owner": BOB, "publicKeyPem": "x" * 10_000}},
        {"publicKey": {"id": f"{BOB}#k", "owner": EVE, "publicKeyPem": PEM}},
        {"publicKey": {"id": f"{BOB}#k", "owner": FAR, "publicKeyPem": PEM}},
        {"publicKey": {"id": f"{BOB}#k", "owner": [BOB], "publicKeyPem": PEM}},
        {"publicKey": {"id": f"{BOB}#k", "controller": EVE, "publicKeyPem": PEM}},
        {"publicKey": {"id": f"{FAR}#k", "owner": BOB, "publicKeyPem": PEM}},
        {"publicKey": {"id": "main-key", "owner": BOB, "publicKeyPem": PEM}},
        {"publicKey": [{"id": f"{BOB}#k", "publicKeyPem": PEM}, {"id": f"{BOB}#k", "publicKeyPem": PEM + "x"}]},
        {"movedTo": 7},
        {"movedTo": "nowhere"},
    ],
)
def test_actors_that_are_refused(change: dict[str, Any]) -> None:
    assert incoming.read_actor(actor())
    with pytest.raises(Invalid):
        incoming.read_actor(actor(**change))


def test_an_actor_updates_itself_and_nobody_else() -> None:
    embedded = {name: value for name, value in actor(name="New").items() if name != "@context"}
    got = read(activity("Update", embedded))
    assert isinstance(got, incoming.Update)
    assert got.profile is not None
    assert incoming.read_actor(got.profile).name == "New"
    assert got.note is None
    for other in (EVE, FAR):
        refused(activity("Update", {**embedded, "id": other}))
    assert read(activity("Create", embedded)) == incoming.Create(f"{BOB}#Create/1", BOB, BOB, "Person", None)


def test_whose_a_key_is() -> None:
    stub = {"@context": AS, "id": BOB, "type": "Person", "publicKey": {"id": f"{BOB}/main-key"}}
    bare = {"id": f"{BOB}#main-key", "type": "Key", "owner": BOB, "publicKeyPem": PEM}
    multikey = {"id": f"{BOB}#main-key", "type": "Multikey", "controller": {"id": BOB}}
    for made in (stub, bare, multikey):
        assert incoming.key_owner(made) == BOB
    for wrong in ({**bare, "owner": FAR}, {**bare, "owner": None}, {**bare, "id": 7}, {}, {"type": "Person"}):
        with pytest.raises(Invalid):
            incoming.key_owner(wrong)


# ── whatever arrives ─────────────────────────────────────────────────────────────────────────────────────────────

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from(
            [
                BOB,
                EVE,
                FAR,
                OURS,
                POST,
                NOTE_ID,
                PUBLIC,
                AS,
                "as:Public",
                "",
                None,
                True,
                7,
                1.5,
                "Note",
                "Person",
                "x\ud7ff",
            ]
        ),
        st.text(max_size=10),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "type", "actor", "object", "href", "url", "owner", "publicKeyPem", "en"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
VERBS = ["Follow", "Undo", "Like", "EmojiReact", "Announce", "Create", "Update", "Delete", "Block", "Move"]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(VERBS),
    made=st.one_of(
        VALUES,
        st.dictionaries(st.sampled_from(sorted(note(inReplyTo=0, url=0, cc=0))), VALUES).map(
            lambda change: note(**change)
        ),
    ),
    change=st.dictionaries(st.sampled_from(["id", "actor", "type", "to", "cc", "@context"]), VALUES, max_size=1),
)
def test_any_activity_is_read_or_invalid(kind: str, made: Any, change: dict[str, Any]) -> None:
    try:
        got = incoming.read({**activity(kind, made), **change})
    except Invalid:
        return
    assert isinstance(got, get_args(incoming.Activity))
    assert incoming.same_origin(got.id, got.actor)
    if isinstance(got, (incoming.Create, incoming.Update)):
        assert incoming.same_origin(got.object_id, got.actor)
        assert got.note is None or got.note.author == got.actor
    hash(tuple(value for value in dataclasses.astuple(got) if not isinstance(value, dict)))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*actor(), "endpoints", "url", "icon", "movedTo", "alsoKnownAs", "name"]), VALUES, max_size=3
    )
)
def test_any_actor_is_read_or_invalid(change: dict[str, Any]) -> None:
    try:
        got = incoming.read_actor(actor(**change))
    except Invalid:
        return
    assert incoming.same_origin(got.id, got.key_id)
    assert got.inbox.isascii()


@pytest.mark.parametrize("kind", ["QuoteRequest", "ReplyRequest"])
@pytest.mark.parametrize("missing", ["object", "instrument"])
def test_a_request_names_both_posts(kind: str, missing: str) -> None:
    whole = {
        **activity(kind, "https://bridge.example/ap/users/1/posts/2"),
        "instrument": "https://remote.example/notes/1",
    }
    read = incoming.read(whole)
    assert isinstance(read, incoming.Request)
    assert (read.kind, read.instrument, read.note) == (kind, "https://remote.example/notes/1", None)
    with pytest.raises(Invalid, match=missing):
        incoming.read({name: value for name, value in whole.items() if name != missing})
