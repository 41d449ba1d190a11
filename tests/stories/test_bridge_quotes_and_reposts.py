"""What an owner quotes or reposts is said as a quote or an Announce where it is in the Fediverse, else as a link."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.rig import PUBLIC, Stranger, eventually
from tests.stories.bridged_account import Place, place
from tests.stories.neighbours import domain, lift, rule, strangers

from threadbridge.domain.accounts import Account
from threadbridge.domain.rules import Rules
from threadbridge.federation import quote
from threadbridge.sandbox.network import Entry, Person
from threadbridge.storage import decisions, quotes, rules


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("quotes")) as found:
        yield found


@pytest.fixture(scope="module")
def account(here: Place) -> Account:
    return here.followed()


@pytest.fixture(scope="module")
def nora(here: Place, account: Account) -> tuple[Person, Account]:
    """A second person of the same network, bridged here too, and followed."""
    person = here.threads.do(lambda: here.threads.network.join("nora", name="Nora"))
    other = here.connect(token=person.token).account
    here.follow(other)
    return person, other


def elsewhere(here: Place, *, by: str = "") -> dict[str, Any]:
    """A post on the stranger's server."""
    note = here.stranger.note(None, "<p>theirs</p>")
    note["url"] = note["id"]
    here.stranger.objects[note["id"]] = note
    return note


def points_to(here: Place, url: str) -> Entry:
    """A post of somebody at Threads whose address there is one in the Fediverse."""
    somebody = here.threads.do(lambda: here.threads.network.join(f"p{len(here.threads.asked)}x"))
    entry = here.threads.post("theirs", by=somebody)
    body = json.dumps({"id": entry.id, "permalink": url, "username": "theirs"}).encode()
    before = here.threads.gate
    here.threads.gate = lambda path, query: (200, {}, body) if path == f"/v1.0/{entry.id}" else before(path, query)
    return entry


def updates_of(here: Place, uri: str) -> list[dict[str, Any]]:
    return [u["object"] for u in here.stranger.of_kind("Update") if u["object"].get("id") == uri]


# ── other accounts here ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_quote_of_another_account_here_has_its_stamp(here: Place, nora: tuple[Person, Account]) -> None:
    theirs = here.threads.post("What Nora said", by=nora[0])
    original = here.note_of(theirs)
    note = here.note_of(here.threads.post("As Nora said", quote=theirs.id))
    assert note["quote"] == note["_misskey_quote"] == note["quoteUri"] == note["quoteUrl"] == original["id"]
    assert [tag["href"] for tag in note["tag"] if tag["type"] == "Link"] == [original["id"]]
    assert note["content"].startswith('<p class="quote-inline">RE: ')
    stamp = here.bridge.get(note["quoteAuthorization"]).json()
    assert stamp["attributedTo"] == original["attributedTo"]
    assert (stamp["interactingObject"], stamp["interactionTarget"]) == (note["id"], original["id"])
    number = int(original["id"].rsplit("/", 1)[1])
    assert here.bridge.count("posts", id=number, quotes_count=1) == 1
    # Nora takes it back: the quoting post says it as a link, and everybody is told.
    held = here.bridge.ground.store.read_now(quotes.by_uri, note["id"])
    assert held is not None
    here.bridge.ground.store.transact_now(quote.revoke, here.bridge.ground.ids, nora[1].id, held.id)
    told = eventually(lambda: updates_of(here, note["id"]))[-1]
    assert "quote" not in told
    assert "quoteAuthorization" not in told
    assert "quote-inline" not in told["content"]
    assert theirs.shortcode in told["content"]
    eventually(lambda: here.bridge.get(note["quoteAuthorization"]).status_code == 410)


def test_who_lets_nobody_quote_is_quoted_by_a_link(here: Place, nora: tuple[Person, Account]) -> None:
    store = here.bridge.ground.store
    store.transact_now(rules.choose, nora[1].id, Rules(quotes="nobody"))
    theirs = here.threads.post("Not to be quoted", by=nora[0])
    here.note_of(theirs)
    note = here.note_of(here.threads.post("And yet", quote=theirs.id))
    assert "quote" not in note
    assert theirs.shortcode in note["content"]
    assert "quote-inline" not in note["content"]
    found = store.read_now(lambda tx: decisions.page(tx, account_id=nora[1].id))
    assert (found[0][1].kind, found[0][1].subject) == ("quote", note["id"])


def test_a_repost_of_another_account_here_is_an_announce(here: Place, nora: tuple[Person, Account]) -> None:
    theirs = here.threads.post("Worth repeating", by=nora[0])
    original = here.note_of(theirs)
    repost = here.threads.post("", repost=theirs.id)
    said = eventually(lambda: [a for a in here.stranger.of_kind("Announce") if a["object"] == original["id"]])[0]
    assert said["to"] == [PUBLIC]
    assert said["cc"] == [original["attributedTo"], f"{said['actor']}/followers"]
    assert here.bridge.get(said["id"]).json()["type"] == "Announce"
    outbox = here.bridge.get(f"{said['actor']}/outbox?page=true").json()["orderedItems"]
    assert next(item for item in outbox if item["id"] == said["id"])["type"] == "Announce"
    here.threads.delete(repost)
    undone = eventually(lambda: here.stranger.of_kind("Undo"))[0]
    assert undone["object"]["id"] == said["id"]
    assert undone["object"]["object"] == original["id"]
    assert [d for d in here.stranger.of_kind("Delete") if "/posts/" in d["object"]["id"]] == []


# ── people elsewhere ─────────────────────────────────────────────────────────────────────────────────────────────


def stamp_of(here: Place, note: dict[str, Any], quoted: str, **bent: Any) -> str:
    uri = f"{here.stranger.base}/stamps/{len(here.stranger.objects)}"
    here.stranger.objects[uri] = {
        "id": uri, "type": "QuoteAuthorization", "attributedTo": here.stranger.uri,
        "interactingObject": note["id"], "interactionTarget": quoted, **bent,
    }  # fmt: skip
    return uri


def asked_for(here: Place, quoted: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = eventually(
        lambda: [r for r in here.stranger.of_kind("QuoteRequest") if r["object"] == quoted]
    )
    return found[0]


def test_a_post_elsewhere_is_quoted_when_its_author_lets_us(here: Place, account: Account) -> None:
    theirs = elsewhere(here)
    entry = here.threads.post("See this", quote=points_to(here, theirs["url"]).id)
    note = here.note_of(entry)
    assert "quote" not in note
    assert theirs["url"] in note["content"]
    request = asked_for(here, theirs["id"])
    assert request["instrument"]["id"] == note["id"]
    assert request["instrument"]["quote"] == theirs["id"]
    stamp = stamp_of(here, note, theirs["id"])
    answer = here.stranger.activity("Accept", request["id"], result=stamp)
    assert here.stranger.post(f"{here.bridge.base}/ap/inbox", answer).status_code == 202
    told = eventually(lambda: updates_of(here, note["id"]))[-1]
    assert (told["quote"], told["quoteAuthorization"]) == (theirs["id"], stamp)
    assert "updated" not in told
    assert here.bridge.get(note["id"]).json()["quoteAuthorization"] == stamp
    # Another one in its place that does not hold: the quote goes, and everybody who saw it is told.
    forged = stamp_of(here, note, theirs["id"], interactingObject="https://elsewhere.example/notes/1")
    here.stranger.post(f"{here.bridge.base}/ap/inbox", here.stranger.activity("Accept", request["id"], result=forged))
    eventually(lambda: "quote" not in updates_of(here, note["id"])[-1])
    eventually(lambda: "quote" not in here.bridge.get(note["id"]).json())
    here.stranger.post(f"{here.bridge.base}/ap/inbox", here.stranger.activity("Accept", request["id"], result=stamp))
    eventually(lambda: updates_of(here, note["id"])[-1].get("quoteAuthorization") == stamp)
    # They take it back.
    withdrawn = here.stranger.activity("Delete", {"id": stamp, "type": "QuoteAuthorization"})
    here.stranger.post(f"{here.bridge.base}/ap/inbox", withdrawn)
    eventually(lambda: "quote" not in updates_of(here, note["id"])[-1])
    assert "quote" not in here.bridge.get(note["id"]).json()


@pytest.mark.parametrize("bent", [
    {"type": "Note"},
    {"attributedTo": "http://127.0.0.1:1/users/mallory"},
    {"interactingObject": "https://elsewhere.example/notes/1"},
    {"interactionTarget": "https://elsewhere.example/notes/1"},
    {"interactionTarget": None},
    None,
])  # fmt: skip
def test_a_forged_stamp_is_never_shown(here: Place, account: Account, bent: dict[str, Any] | None) -> None:
    theirs = elsewhere(here)
    note = here.note_of(here.threads.post("See this", quote=points_to(here, theirs["url"]).id))
    request = asked_for(here, theirs["id"])
    stamp = stamp_of(here, note, theirs["id"], **bent) if bent else f"{here.stranger.base}/stamps/nowhere"
    before = here.bridge.count("decisions", kind="stamp")
    here.stranger.post(f"{here.bridge.base}/ap/inbox", here.stranger.activity("Accept", request["id"], result=stamp))
    eventually(lambda: here.bridge.count("decisions", kind="stamp") == before + 1)
    assert "quote" not in here.bridge.get(note["id"]).json()
    assert updates_of(here, note["id"]) == []


def test_nobody_else_answers_for_the_author(here: Place, account: Account) -> None:
    theirs = elsewhere(here)
    note = here.note_of(here.threads.post("See this", quote=points_to(here, theirs["url"]).id))
    request = asked_for(here, theirs["id"])
    stamp = stamp_of(here, note, theirs["id"])
    mallory = Stranger(here.stranger.base, name="mallory", key=here.stranger.key)
    here.stranger.objects[mallory.uri] = mallory.actor()
    before = here.bridge.count("jobs", kind="check_stamp")
    for answer in (
        # In another's name, and from another place than the author's server.
        {**here.stranger.activity("Accept", request["id"], result=stamp), "actor": mallory.uri},
        here.stranger.activity("Accept", request["id"], result="https://elsewhere.example/stamps/1"),
        here.stranger.activity("Accept", request["id"]),
        here.stranger.activity("Accept", f"{request['id']}0", result=stamp),
    ):
        here.stranger.post(f"{here.bridge.base}/ap/inbox", answer)
    assert here.bridge.count("jobs", kind="check_stamp") == before
    assert here.bridge.count("quotings", uri=theirs["id"], state="asked") == 1
    refused = here.stranger.activity("Reject", request["id"])
    here.stranger.post(f"{here.bridge.base}/ap/inbox", refused)
    assert here.bridge.count("quotings", uri=theirs["id"], state="refused") == 1
    assert "quote" not in here.bridge.get(note["id"]).json()


def test_a_repost_of_a_post_elsewhere_is_an_announce(here: Place, account: Account) -> None:
    theirs = elsewhere(here)
    here.threads.post("", repost=points_to(here, theirs["url"]).id)
    said = eventually(lambda: [a for a in here.stranger.of_kind("Announce") if a["object"] == theirs["id"]])[0]
    assert here.stranger.uri in said["cc"]


def test_whom_the_owner_suspends_is_neither_asked_nor_boosted(here: Place, account: Account) -> None:
    with strangers(here.bridge, "mallory") as (mallory,):
        note = mallory.note(None, "<p>theirs</p>")
        mallory.objects[note["id"]] = {**note, "url": note["id"]}
        rule(here.bridge, "suspend", domain(mallory), owner=account.id)
        said = here.note_of(here.threads.post("", repost=points_to(here, note["id"]).id))
        assert (said["type"], note["id"] in said["content"]) == ("Note", True)
        assert not mallory.fetched
        assert not mallory.requests
        lift(here.bridge, domain(mallory), owner=account.id)
        here.threads.post("", repost=points_to(here, note["id"]).id)
        eventually(lambda: [a for a in mallory.of_kind("Announce") if a["object"] == note["id"]])


def test_what_is_nowhere_in_the_fediverse_is_a_link(here: Place, account: Account) -> None:
    nowhere = f"{here.stranger.base}/pages/1"
    entry = here.threads.post("", repost=points_to(here, nowhere).id)
    note = here.note_of(entry)
    assert nowhere in note["content"]
    assert note["type"] == "Note"
    quoting = here.note_of(here.threads.post("Hm", quote=points_to(here, f"{nowhere}2").id))
    assert not {"quote", "_misskey_quote", "quoteUri", "quoteUrl"} & quoting.keys()
