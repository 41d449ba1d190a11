"""The weaknesses that others had and published, each as the attack that would find it here, by its name.

What is asserted is always the same: the answer, and that nothing was stored, queued or shown. Where the attack is
the subject of a story of its own, the table `ELSEWHERE` names it; where we have not got the part that was weak,
`NOT_HERE` says so, and a test looks that we still have not.
"""

from __future__ import annotations

import ast
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import AS, Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge
from tests.stories.crowd import retract
from tests.stories.raw_http import talk
from tests.stories.test_a_server_that_does_not_answer_is_waited_for import a_port, asking, neighbour, says

from threadbridge.activitypub import document, incoming, text
from threadbridge.errors import BadAnswer, Invalid
from threadbridge.net.guard import is_public
from threadbridge.storage import schema
from threadbridge.web import senders

ROOT = Path(__file__).parents[2]
SECURITY = "https://w3id.org/security/v1"
ACTIVITY = "application/activity+json"

ELSEWHERE = {
    "CVE-2023-36461 a dripping server": "tests/world/test_net_client.py::test_a_slow_dripper_is_cut_at_the_deadline",
    "CVE-2023-36460 pictures that are programs": "tests/world/test_media_pictures.py"
    "::test_what_is_no_picture_is_refused_in_words",
    "GHSA-hcqf parsers that differ": "tests/world/test_net_guard.py"
    "::test_a_url_that_two_parsers_could_read_differently_is_refused",
    "GHSA-xfrj, GHSA-crr4, GHSA-vwhj addresses that mean inside": "tests/world/test_net_guard.py"
    "::test_no_spelling_of_a_private_address_is_connected_to",
    "GHSA-46w6, CVE-2026-27468 a second HTTP client": "tests/test_architecture.py::test_each_library_has_one_home",
    "CVE-2024-39687 a name that changes its mind": "tests/world/test_net_guard.py"
    "::test_a_name_that_changes_its_mind_is_not_followed",
    "CVE-2025-23221 WebFinger redirects": "tests/world/test_net_client.py"
    "::test_redirects_end_after_three_hops_and_in_circles",
    "CVE-2026-34148 a dead key asked for ever": "tests/world/test_net_peers.py"
    "::test_a_dead_key_is_asked_once_and_then_ever_more_rarely",
    "CVE-2026-77632 a signed request led elsewhere": "tests/world/test_net_client.py"
    "::test_a_request_signed_for_another_host_is_not_sent",
    "CVE-2024-52591 a redirect poses as another": "tests/world/test_net_peers.py"
    "::test_a_server_cannot_speak_for_another",
    "Misskey 8c5a9c19 the address judged after the request": "tests/world/test_net_guard.py"
    "::test_the_delivery_engine_judges_what_it_dials_once_more",
    "CVE-2025-24896 a cookie that outlives its session": "tests/stories/test_owner_signs_in_and_out.py"
    "::test_signing_out_ends_the_session_for_the_cookie_too",
    "Akkoma 2025.03 a key that claims an owner": "tests/world/test_net_peers.py"
    "::test_a_bare_key_must_be_listed_by_its_owner",
    "Akkoma 2026.03 WebFinger without consent": "tests/world/test_net_peers.py"
    "::test_webfinger_confirms_a_subject_on_another_host",
    "Lemmy 1c29f4e a fetch that ends at home": "tests/world/test_net_client.py"
    "::test_a_redirect_to_our_own_address_is_refused",
    "PeerTube CVE-2025-32944, CVE-2025-32949 archives that kill": "tests/stories/test_bad_input_downloads.py",
    "PeerTube CVE-2025-32947 a collection without end": "tests/stories/test_the_thread_around_an_answer_is_found.py"
    "::test_a_collection_without_end_ends",
    "PeerTube CVE-2025-32946 somebody else's thing named in a message": "tests/stories"
    "/test_bridge_quotes_and_reposts.py::test_nobody_else_answers_for_the_author",
    "CVE-2026-33869, GHSA-q4g8, GHSA-8h43 an approval of a quote by another host": "tests/stories"
    "/test_bridge_quotes_and_reposts.py::test_a_forged_stamp_is_never_shown",
    "CVE-2025-54879, GHSA-84ch a limit that is counted for another route": "tests/stories"
    "/test_floods_are_answered_429.py::test_bad_signatures_count_and_make_us_ask_little",
    "GHSA-58x8, GHSA-q3rg, GHSA-c2r5, GHSA-5fq7 whose address counts": "tests/stories/test_floods_are_answered_429.py"
    "::test_loopback_is_limited_too_and_a_name_in_a_header_does_not_help",
    "GHSA-mq2m, GHSA-94h4, GHSA-v39f the block list is the owner's": "tests/stories"
    "/test_owner_decides_who_may_speak.py::test_nobody_but_the_signed_in_gets_in",
    "CVE-2025-62175, GHSA-r2fh, GHSA-f3q3, GHSA-7gwh sessions that outlive their end": "tests/stories"
    "/test_owner_signs_in_and_out.py::test_signing_out_everywhere_ends_all_sessions_and_open_links",
    "GHSA-ww85, GHSA-f3q8 another owner's number in the address": "tests/stories/test_owner_sets_rules_for_posts.py"
    "::test_nobody_decides_about_anothers_quotes",
    "CVE-2026-28431, CVE-2026-28433 another owner's file": "tests/stories/test_owner_sees_what_happened.py"
    "::test_links_that_do_not_fit_are_all_answered_alike",
    "GHSA-7jvv, GHSA-hx34 pages beyond both ends": "tests/stories/test_served_documents.py"
    "::test_pages_beyond_both_ends_are_lists",
    "CVE-2026-23961, GHSA-5h2f a suspension passed by another verb": "tests/stories"
    "/test_suspended_servers_are_not_heard.py::test_every_verb_of_a_suspended_server_is_refused_and_stores_nothing",
    "CVE-2026-23961, GHSA-5h2f a suspension passed by another hand": "tests/stories"
    "/test_suspended_servers_are_not_heard.py::test_what_a_suspended_person_said_does_not_come_in_by_another_hand",
    "Akkoma 2026.08 signatures of the blocked": "tests/stories/test_suspended_servers_are_not_heard.py"
    "::test_a_suspended_server_that_we_never_met_is_not_even_asked_for_its_key",
    "GHSA-ccpr a document for one reader shown to the next": "tests/stories/test_secure_mode_asks_who_reads.py"
    "::test_a_signed_request_reads_everything_and_nobody_reads_over_its_shoulder",
    "GHSA-ccpr a reader who is blocked": "tests/stories/test_secure_mode_asks_who_reads.py"
    "::test_blocked_servers_and_people_do_not_read",
    "GHSA-m9qf pages of the owner in a cache": "tests/stories/test_owner_signs_in_and_out.py"
    "::test_owners_pages_are_kept_by_nobody_and_need_a_session",
    "CVE-2026-69132 memory of hosts, on disk": "tests/world/test_storage_forgetting.py"
    "::test_hosts_without_anything_are_forgotten",
    "CVE-2026-69132 memory of hosts, in the process": "tests/stories/test_floods_are_answered_429.py"
    "::test_a_bucket_fills_again_and_memory_is_bounded",
    "Pixelfed CVE-2025-30741 a wish taken for the answer": "tests/stories/test_relays_carry_public_posts.py"
    "::test_a_relay_in_mastodons_way",
    "Owncast CVE-2023-3188, Lemmy CVE-2026-33693 a look-up that leads inside": "tests/world/test_net_guard.py"
    "::test_no_spelling_of_a_private_address_is_connected_to",
    "CVE-2023-30798, CVE-2024-47874 forms without end": "tests/stories/test_owner_signs_in_and_out.py"
    "::test_bad_forms_are_answered_in_words",
}
NOT_HERE = {
    "GHSA-vm39, GHSA-5r37 sign-in by mail address": "e-?mail",
    "GHSA-58x8 passwords": "password",
    "GHSA-7w3c, GHSA-vp5r, CVE-2025-62175 event streams": "stream",
    "CVE-2023-42452 translations": "translat",
    "CVE-2023-36459 embedded pages": "embed",
    "GHSA-gq5q, CVE-2026-29178 media proxies": "proxy",
    "GHSA-7jvv an administrator's rooms": "admin",
    "CVE-2023-3188 looking up for anybody": "search|lookup|interact",
}

# The same weakness under its other names.
ALSO_CALLED = {
    "CVE-2024-25618": "GHSA-vm39", "CVE-2024-25619": "GHSA-7w3c", "CVE-2026-23963": "ghsa_gg8q",
    "GHSA-2693": "CVE-2023-42452", "GHSA-2vxv": "cve_2024_32983", "GHSA-3f39": "cve_2023_49079",
    "GHSA-3fjr": "cve_2024_23832", "GHSA-53m7": "cve_2026_46349", "GHSA-55j9": "cve_2023_36462",
    "GHSA-6w2c": "cve_2025_25306", "GHSA-6x3w": "ghsa_gg8q", "GHSA-9928": "CVE-2023-36460",
    "GHSA-9pxv": "CVE-2023-36461", "GHSA-9rfg": "cve_2026_42462", "GHSA-ccm4": "CVE-2023-36459",
    "GHSA-chgx": "cve_2026_46349", "GHSA-jhrq": "cve_2024_25623", "GHSA-m2gq": "CVE-2024-52591",
    "GHSA-m6mh": "RUSTSEC-2025-0071", "GHSA-qgmm": "CVE-2026-27468", "GHSA-qqrm": "cve_2024_25636",
    "GHSA-v3xf": "cve_2023_42451", "GHSA-xjvf": "cve_2024_37903", "GHSA-xx55": "GHSA-crr4",
}  # fmt: skip


def listening(bridge: Bridge, stranger: Stranger) -> Served:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", urlsplit(stranger.base).port or 0))
    return Served(bridge.loop, stranger.create_app(), sock)


class Scene:
    """A bridge with one account and post; Mallory, who is known; and the victim, on another server."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        held = [free_socket(), free_socket()]
        ports = [sock.getsockname()[1] for sock in held]
        for sock in held:
            sock.close()
        self.mallory = Stranger(f"http://127.0.0.1:{ports[0]}", name="mallory")
        self.victim = Stranger(f"http://127.0.0.1:{ports[1]}", name="alice", key=a_key(3))
        self.servers = [listening(bridge, self.mallory), listening(bridge, self.victim)]
        account = bridge.account()
        self.me, self.post = bridge.ground.ids.actor(account.id), bridge.post(account)
        self.inbox = f"{self.me}/inbox"
        self.notes: dict[str, dict[str, Any]] = {}
        for stranger in (self.mallory, self.victim):
            assert stranger.post(self.inbox, stranger.activity("Follow", self.me)).status_code == 202
            answer = stranger.activity("Create", stranger.note(self.post, f"<p>By {stranger.name}</p>"))
            assert stranger.post(self.inbox, answer).status_code == 202
            self.notes[stranger.name] = stranger.objects[answer["object"]["id"]] = answer["object"]

    @contextmanager
    def nothing_happens(self) -> Iterator[None]:
        before, replies = self.bridge.contents(), self.bridge.get(f"{self.post}/replies").content
        yield
        after = self.bridge.contents()
        # What has no effect is counted, and its id is known from then on.
        for table in ("dropped", "seen_activities", "decisions", "peers", "peer_keys", "hosts"):
            before.pop(table, None)
            after.pop(table, None)
        assert not {name for name in before if before[name] != after[name]}
        assert self.bridge.get(f"{self.post}/replies").content == replies

    def page(self, shows: str = "Hello") -> str:
        """The page of the post; answers are on it within half a second."""

        def found() -> str | None:
            shown = self.bridge.get(self.post.replace("/ap/users/1/posts/", "/@alice/"), accept="text/html")
            assert shown.status_code == 200
            return shown.text if shows in shown.text else None

        return str(eventually(found))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running_bridge(tmp_path_factory.mktemp("advisories"), worker=False) as bridge:
        made = Scene(bridge)
        yield made
        for server in made.servers:
            server.stop()


def refused(answer: httpx2.Response) -> bool:
    return 400 <= answer.status_code < 500


# ── who said it ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_cve_2022_24307_and_cve_2024_32983_an_embedded_rsa_signature_proves_nothing(scene: Scene) -> None:
    activity = scene.victim.activity("Like", scene.post)
    activity["@context"] = [AS, SECURITY, {"actor": "as:object", "object": "as:actor"}]
    activity["signature"] = {"type": "RsaSignature2017", "creator": scene.victim.key_id, "signatureValue": "eA=="}
    with scene.nothing_happens():
        assert refused(scene.mallory.post(scene.inbox, activity))


def test_cve_2025_54888_a_good_signature_by_somebody_else(scene: Scene) -> None:
    for kind in ("Follow", "Like", "Announce", "Block", "Undo"):
        inner: Any = scene.post if kind in ("Like", "Announce") else scene.me
        if kind == "Undo":
            inner = {"type": "Follow", "actor": scene.victim.uri, "object": scene.me}
        with scene.nothing_happens():
            assert refused(scene.mallory.post(scene.inbox, scene.victim.activity(kind, inner)))


def test_cve_2023_49079_and_cve_2026_28432_a_signature_that_leaves_the_body_out(scene: Scene) -> None:
    like = scene.mallory.activity("Like", scene.post)
    for covered in (("(request-target)", "date"), ("(request-target)", "host", "date"), ("date",)):
        with scene.nothing_happens():
            assert scene.mallory.post(scene.inbox, like, covered=covered).status_code == 401


def test_akkoma_2026_05_a_signature_for_another_host(scene: Scene) -> None:
    body = orjson.dumps(scene.mallory.activity("Like", scene.post))
    headers = scene.mallory.signed(scene.inbox.replace(scene.bridge.base, "https://other.example"), body)
    with scene.nothing_happens():
        assert refused(httpx2.post(scene.inbox, content=body, headers=headers, trust_env=False))
        headers["host"] = scene.bridge.authority
        assert refused(httpx2.post(scene.inbox, content=body, headers=headers, trust_env=False))


def test_takahe_an_unsigned_activity(scene: Scene) -> None:
    body = orjson.dumps({**scene.mallory.activity("Like", scene.post), "signature": "in the body"})
    with scene.nothing_happens():
        answer = httpx2.post(scene.inbox, content=body, headers={"content-type": ACTIVITY}, trust_env=False)
        assert answer.status_code == 401


def test_cve_2024_23832_a_key_document_that_names_another_id(scene: Scene) -> None:
    poisoned = {**scene.victim.actor(), "publicKey": {**scene.victim.actor()["publicKey"]}}
    poisoned["publicKey"]["publicKeyPem"] = scene.mallory.key.public_pem
    for path in ("/k/1", "/users/victim2"):
        scene.mallory.objects[scene.mallory.base + path] = poisoned
        with scene.nothing_happens():
            like = scene.victim.activity("Like", scene.post)
            key_id = scene.mallory.base + path
            assert refused(scene.mallory.post(scene.inbox, like, key_id=key_id))


class Uploads:
    """A victim's server that serves what people put there, under any media type they like."""

    def __init__(self, bridge: Bridge) -> None:
        sock = free_socket()
        self.base = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self.media_type = "text/plain"
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda actor: actor
        self.served = Served(bridge.loop, Starlette(routes=[Route("/{path:path}", self._file)]), sock)

    def writer(self, path: str) -> Stranger:
        stranger = Stranger(self.base, name=path)
        assert stranger.uri == f"{self.base}/users/{path}"
        return stranger

    async def _file(self, request: Request) -> Response:
        stranger = Stranger(self.base, name=request.path_params["path"].rpartition("/")[2])
        made = self.change(stranger.actor())
        return Response(orjson.dumps(made), headers={"content-type": self.media_type})


@pytest.fixture(scope="module")
def uploads(scene: Scene) -> Iterator[Uploads]:
    made = Uploads(scene.bridge)
    yield made
    made.served.stop()


def test_cve_2024_25623_and_cve_2024_25636_an_uploaded_file_is_no_actor(scene: Scene, uploads: Uploads) -> None:
    uploads.change = lambda actor: actor
    types = ("text/plain", "image/png", "application/json", "application/ld+json", "text/html", ACTIVITY + "x")
    for number, media_type in enumerate(types):
        uploads.media_type = media_type
        speaker = uploads.writer(f"file{number}")
        with scene.nothing_happens():
            assert refused(speaker.post(scene.inbox, speaker.activity("Follow", scene.me)))
    uploads.media_type = ACTIVITY
    speaker = uploads.writer("genuine")
    assert speaker.post(scene.inbox, speaker.activity("Like", scene.post)).status_code == 202


BAD_INBOXES: list[Any] = [
    "javascript:alert(1)",
    "file:///etc/passwd",
    "",
    ["http://a.example/i"],
    {"id": "x"},
    None,
    "data:,x",
    "//a.example/i",
]


def test_ghsa_5wxh_an_actor_whose_inbox_is_no_address(scene: Scene, uploads: Uploads) -> None:
    uploads.media_type = ACTIVITY
    for number, bad in enumerate(BAD_INBOXES):
        if bad == ["http://a.example/i"]:
            continue  # a list of one is read as its one item, and may name any host for its inbox
        uploads.change = lambda actor, bad=bad: {**actor, "inbox": bad}  # type: ignore[misc]
        speaker = uploads.writer(f"inbox{number}")
        with scene.nothing_happens():
            assert refused(speaker.post(scene.inbox, speaker.activity("Follow", scene.me))), bad


def test_cve_2025_25306_authority_is_the_id_and_never_the_url(scene: Scene) -> None:
    theirs = {**scene.victim.note(scene.post, "<p>Forged</p>"), "attributedTo": scene.mallory.uri}
    theirs["url"] = f"{scene.mallory.base}/@mallory/1"
    with scene.nothing_happens():
        assert refused(scene.mallory.post(scene.inbox, scene.mallory.activity("Create", theirs)))


def test_gotosocial_a_stranger_who_says_to_be_one_of_ours(scene: Scene) -> None:
    with scene.nothing_happens():
        like = {**scene.mallory.activity("Like", scene.post), "actor": scene.me}
        assert refused(scene.mallory.post(scene.inbox, like))
        assert refused(scene.mallory.post(scene.inbox, like, key_id=f"{scene.me}#main-key"))


def test_cve_2026_46349_and_cve_2026_42462_documents_that_rearrange_themselves(scene: Scene) -> None:
    like = scene.mallory.activity("Like", scene.post)
    for key in ("@graph", "@included", "@reverse", "@nest", "@import"):
        for bent in ({**like, key: [like]}, {**like, "object": {"id": scene.post, key: {"actor": scene.victim.uri}}}):
            with scene.nothing_happens():
                assert scene.mallory.post(scene.inbox, bent).status_code == 400, key


HOSTS = ("own", "sibling", "foreign")


def test_ghsa_37r7_and_hollo_0_8_5_every_mixture_of_hosts(scene: Scene) -> None:
    """Signed by Mallory: actor, activity, object and author each Mallory's own, a sibling's on the same server, or on
    another server. Only all of Mallory's own has an effect; what names somebody else's object has none on theirs."""
    mallory, victim = scene.mallory, scene.victim
    people = {"own": mallory.uri, "sibling": f"{mallory.base}/users/sib", "foreign": victim.uri}
    number = itertools.count()
    for kind in ("Create", "Update", "Delete", "Undo"):
        for actor, activity, made, author in itertools.product(HOSTS, repeat=4):
            bases = {"own": mallory.base, "sibling": mallory.base, "foreign": victim.base}
            tag = f"{kind}{next(number)}"
            inner: Any = {
                **mallory.note(scene.post, "<p>Forged</p>"),
                "id": f"{bases[made]}/notes/{tag}",
                "attributedTo": people[author],
            }
            if made == "foreign":
                inner["id"] = scene.notes["alice"]["id"]
            if kind == "Delete":
                inner = inner["id"]
            elif kind == "Undo":
                inner = {
                    "id": f"{bases[made]}/follows/1",
                    "type": "Follow",
                    "actor": people[author],
                    "object": scene.me,
                }
            if "foreign" not in (actor, activity, made, author) and actor == "own" and author in ("own",):
                continue  # genuine, or as good as: the object is new and Mallory's own
            said = {
                "@context": AS,
                "id": f"{bases[activity]}/a/{tag}",
                "type": kind,
                "actor": people[actor],
                "object": inner,
            }
            with scene.nothing_happens():
                status = mallory.post(scene.inbox, said).status_code
                assert status == 202 or 400 <= status < 500, (kind, actor, activity, made, author)


def test_cve_2024_37903_a_create_that_names_another_ones_post(scene: Scene) -> None:
    taken = {**scene.mallory.note(scene.post, "<p>Mine now</p>"), "id": scene.notes["alice"]["id"]}
    sibling = Stranger(scene.mallory.base, name="mallory")
    with scene.nothing_happens():
        for kind in ("Create", "Update"):
            assert refused(sibling.post(scene.inbox, sibling.activity(kind, taken)))
        own = {**scene.notes["mallory"], "attributedTo": f"{scene.mallory.base}/users/sib"}
        assert refused(scene.mallory.post(scene.inbox, scene.mallory.activity("Update", own)))


def test_fep_fe34_an_embedded_object_of_another_origin_is_only_an_id(scene: Scene) -> None:
    forged = {**scene.notes["alice"], "content": "<p>Words in her mouth</p>"}
    with scene.nothing_happens():
        assert scene.mallory.post(scene.inbox, scene.mallory.activity("Announce", forged)).status_code in (202, 400)
    assert "Words in her mouth" not in scene.page()


def test_misskey_d10fdfe9_an_address_that_begins_like_ours(scene: Scene) -> None:
    with scene.nothing_happens():
        for near in (
            scene.post.replace(scene.bridge.base, f"{scene.bridge.base}.evil.example"),
            scene.post.replace(scene.bridge.base, f"{scene.bridge.base}@evil.example"),
            scene.post.replace("http://", "https://"),
            scene.post + "/../1",
            scene.post.upper(),
        ):
            answer = scene.mallory.post(scene.inbox, scene.mallory.activity("Like", near))
            assert answer.status_code in (202, 400), near


# ── what is asked of us and of others ────────────────────────────────────────────────────────────────────────────


def test_cve_2025_32948_an_activity_makes_us_fetch_nothing_but_its_key(scene: Scene) -> None:
    scene.victim.fetched.clear()
    note = scene.mallory.note(
        f"{scene.victim.base}/notes/unknown",
        "<p>Hi</p>",
        tag=[],
        attachment=[{"type": "Image", "url": f"{scene.victim.base}/picture.png", "mediaType": "image/png"}],
    )
    assert scene.mallory.post(scene.inbox, scene.mallory.activity("Create", note)).status_code == 202
    assert scene.victim.fetched == []


def test_cve_2023_36461_a_key_that_drips_in_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "FETCH_SECONDS", 0.5)
    with dripping() as base:
        stranger = Stranger(base)
        began = time.monotonic()
        with scene.nothing_happens():
            assert refused(stranger.post(scene.inbox, stranger.activity("Like", scene.post)))
        assert time.monotonic() - began < 4


@contextmanager
def dripping() -> Iterator[str]:
    """A server that begins to answer and never ends."""
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not ending.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/activity+json\r\n\r\n{")
                        while not ending.wait(0.1):
                            connection.sendall(b" ")
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ending.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    "address",
    [
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2002:7f00:1::1",
        "3fff::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
    ],
)
def test_cve_2026_50131_and_cve_2025_25194_addresses_that_filters_forget(address: str) -> None:
    assert not is_public(ip_address(address))


def test_ghsa_xqw8_no_address_leads_away(scene: Scene) -> None:
    for path in (
        "//evil.example",
        "/%5Cevil.example",
        "/%2f%2fevil.example",
        "/owner//evil.example",
        "/@alice//evil.example",
        "/owner/sign-in?token=x&next=//evil.example",
        "/web//evil.example",
    ):
        answer = talk(scene.bridge.base, f"GET {path} HTTP/1.1\r\nHost: {scene.bridge.authority}\r\n\r\n".encode())
        found = re.search(rb"(?im)^location: *([^\r]*)", answer.head)
        assert answer.status < 500
        assert found is None or (found[1].startswith(b"/") and not found[1].startswith(b"//")), path


def test_cve_2023_42451_hosts_that_are_nearly_ours(scene: Scene) -> None:
    here = scene.bridge.authority
    near = (
        here.replace(".", "./", 1),
        f"{here}/",
        f"/{here}",
        f"{here}.",
        f"x@{here}",
        f"{here}@evil.example",
        f" {here}",
        f"{here}#",
        f"{here}?",
        here.replace(":", "%3a", 1),
        f"{here}\\",
    )
    for host in near:
        answer = scene.bridge.get(f"/.well-known/webfinger?resource={quote(f'acct:alice@{host}')}")
        assert answer.status_code in (400, 404), host


def test_cve_2026_48710_a_host_that_is_none(scene: Scene) -> None:
    for host in ("a b", "evil.example/ap", "x\x7f", "[", "evil.example:99999", "@", "a,b"):
        answer = talk(scene.bridge.base, f"GET /@alice HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
        assert answer.status in (0, 400, 421), host


def test_cve_2025_62727_a_thousand_ranges(scene: Scene) -> None:
    ranges = ",".join(f"{number}-{number}" for number in range(2000))
    answer = scene.bridge.get("/livez", Range=f"bytes={ranges}")
    assert answer.status_code in (200, 400, 416, 431)


def test_ghsa_gwhw_what_may_not_be_seen_and_what_is_not_there_answer_alike(scene: Scene) -> None:
    other = scene.bridge.account("carol")
    theirs = scene.bridge.post(other, "Hello").rpartition("/")[2]
    wrong = scene.bridge.get(f"{scene.me}/posts/{theirs}")
    missing = scene.bridge.get(f"{scene.me}/posts/987654")
    assert (wrong.status_code, wrong.content) == (missing.status_code, missing.content) == (404, missing.content)


def test_cve_2024_25108_and_ghsa_58x8_every_room_of_the_owner_is_locked(scene: Scene) -> None:
    locked = [path for path in promised_routes() if path.startswith("/owner") and "sign-in" not in path]
    assert len(locked) > 8
    for path in locked:
        filled = re.sub(r"\{[^}]*\}", "1", path)
        for method in ("GET", "POST"):
            answer = httpx2.request(
                method, scene.bridge.base + filled, trust_env=False, headers={"Accept": "text/html"}
            )
            assert answer.status_code in (303, 401, 403, 404, 405), (method, path, answer.status_code)
            assert answer.headers.get("location", "/owner/sign-in").startswith("/owner/sign-in"), path


def promised_routes() -> list[str]:
    """Every route, from the table in README (which another test keeps equal to what is routed)."""
    table = (ROOT / "README.md").read_text()
    return sorted(set(re.findall(r"`(/[^`?\s]*)`", table)))


@pytest.mark.parametrize(("what", "word"), NOT_HERE.items(), ids=lambda value: str(value)[:20])
def test_what_is_not_here_is_still_not_here(what: str, word: str) -> None:
    assert not [path for path in promised_routes() if re.search(word, path, re.IGNORECASE)], what


# ── bodies and texts ─────────────────────────────────────────────────────────────────────────────────────────────


def said_by_mallory(scene: Scene, **given: Any) -> dict[str, Any]:
    note = scene.mallory.note(scene.post, **given)
    assert scene.mallory.post(scene.inbox, scene.mallory.activity("Create", note)).status_code == 202
    return note


def test_cve_2023_36462_no_half_of_an_address_is_hidden(scene: Scene) -> None:
    link = '<a href="https://evil.example"><span class="invisible">evil.example/</span>bank.example</a>'
    said_by_mallory(scene, content=f"<p>{link}</p>")
    before = scene.page("bank.example").partition("bank.example")[0]
    assert "invisible" not in before[before.rindex("<a ") :]


def test_cve_2023_36459_ghsa_mq2m_and_cve_2023_3746_nothing_foreign_runs(scene: Scene) -> None:
    hostile = (
        '<iframe srcdoc="<script>1</script>"></iframe>',
        '<embed src="x">',
        '<object data="x"></object>',
        "<script>1</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="javascript:alert(1)">x</a>',
        '<p style="background:url(x)">x</p>',
        "<svg onload=alert(1)>",
        '<math><mi xlink:href="javascript:1">x</mi></math>',
        "<form action=x><input name=y></form>",
    )
    said_by_mallory(scene, content="<p>Look here</p>" + "".join(hostile), url="javascript:alert(2)")
    page = scene.page("Look here").partition("Look here")[2]
    for word in (
        "<iframe",
        "<embed",
        "<object",
        "<script>1",
        "onerror",
        "javascript:",
        "style=",
        "<svg",
        "<math",
        "<form action=x",
    ):
        assert word not in page, word


NO_LINKS = ("javascript:alert(1)", "JavaScript:x", "data:text/html,x", "file:///etc/passwd", "vbscript:x", "//x", "x")


def test_ghsa_x2rc_a_link_is_http_or_nothing(scene: Scene) -> None:
    for bad in NO_LINKS:
        for url in (
            bad,
            [bad],
            {"type": "Link", "href": bad},
            [{"type": "Link", "href": bad, "mediaType": "text/html"}],
        ):
            assert incoming.read_note({**scene.mallory.note(scene.post), "url": url}).url is None, url
            assert incoming.read_actor({**scene.mallory.actor(), "url": url}).url is None, url
    for bad in NO_LINKS:
        said_by_mallory(scene, content="<p>Where does it lead?</p>", url=bad)
    page = scene.page("Where does it lead?")
    assert not re.findall(r"(?i)(?:href|src)=[\"'](?!https?://|/(?!/)|#)[^\"']+", page.partition("Where does")[2])


def test_cve_2023_3706_and_3707_and_hollo_0_7_what_is_not_public_has_no_address(scene: Scene) -> None:
    """What was taken back is in no list and at no address, under no spelling of its number."""
    dora = scene.bridge.account("dora")
    taken_back = scene.bridge.post(dora, "A draft by mistake")
    assert scene.bridge.get(taken_back).status_code == 200
    retract(scene.bridge, dora, int(taken_back.rpartition("/")[2]))
    for path in (taken_back, f"{taken_back}/activity", taken_back.replace("/ap/users/", "/ap/users/0")):
        answer = scene.bridge.get(path)
        assert answer.status_code in (404, 410), path
        assert "A draft by mistake" not in answer.text
    owner = taken_back.partition("/posts/")[0]
    for path in (f"{owner}/outbox?page=true", f"{owner}/featured", "/@dora", "/@dora/feed.atom"):
        assert "A draft by mistake" not in scene.bridge.get(path, accept="*/*").text, path


def test_cve_2026_62857_the_second_address_of_nodeinfo_leads_nowhere_else(scene: Scene) -> None:
    """Fedify fetched it unguarded, and took `data:`."""
    port = a_port()
    base, loop = f"http://127.0.0.1:{port}", scene.bridge.loop
    before = len(scene.victim.fetched)
    second = (
        'data:application/json,{"software":{"name":"x","version":"1"}}', "file:///etc/passwd", "gopher://127.0.0.1/",
        f"{scene.victim.base}/nodeinfo/2.0", f"//{urlsplit(scene.victim.base).netloc}/nodeinfo/2.0",
        "http://[::1]/nodeinfo/2.0", "http://169.254.169.254/latest/meta-data", f"http://127.0.0.1:{port}@[::1]/", "",
    )  # fmt: skip
    for place in second:
        with neighbour(loop, port, says("", place=place)) as there, asking(loop) as remote:
            with pytest.raises(BadAnswer):
                loop.run(remote.software(base))
            assert there.asked in (["/.well-known/nodeinfo"], ["/.well-known/nodeinfo"] * 2), place
    with neighbour(loop, port, says(base)), asking(loop) as remote:
        assert loop.run(remote.software(base)).name == "mastodon"
    assert len(scene.victim.fetched) == before


def test_cve_2023_42452_and_cve_2023_5057_names_are_text(scene: Scene, uploads: Uploads) -> None:
    uploads.media_type = ACTIVITY
    uploads.change = lambda actor: {**actor, "name": "<img src=x onerror=alert(1)>", "url": "javascript:alert(3)"}
    speaker = uploads.writer("named")
    answer = speaker.activity("Create", speaker.note(scene.post, "<p>Named</p>"))
    assert speaker.post(scene.inbox, answer).status_code == 202
    page = scene.page("<p>Named</p>")
    assert "<img src=x" not in page
    assert "javascript:" not in page


def test_ghsa_gg8q_fields_at_their_limit_over_it_and_ten_times(scene: Scene, uploads: Uploads) -> None:
    uploads.media_type = ACTIVITY
    limits: dict[str, Callable[[int], dict[str, Any]]] = {
        "name": lambda n: {"name": "n" * n},
        "summary": lambda n: {"summary": "s" * n},
        "alsoKnownAs": lambda n: {"alsoKnownAs": [f"https://a.example/{i}" for i in range(n)]},
        "attachment": lambda n: {"attachment": [{"type": "PropertyValue", "name": "a", "value": "b"}] * n},
        "preferredUsername": lambda n: {"preferredUsername": "u" * n},
    }
    statuses: dict[str, list[int]] = {}
    for field, made in limits.items():
        for count in (255, 2_048, 2_049, 20_480):
            uploads.change = lambda actor, made=made, count=count: {**actor, **made(count)}  # type: ignore[misc]
            speaker = uploads.writer(f"long{field}{count}")
            answer = speaker.post(scene.inbox, speaker.activity("Like", scene.post))
            statuses.setdefault(field, []).append(answer.status_code)
    # Long texts are cut, long lists refused: what they are in is not believed at all.
    cut, refused_beyond = [202] * 4, [202, 401, 401, 401]
    assert statuses == {
        "name": cut, "summary": cut, "preferredUsername": cut, "alsoKnownAs": refused_beyond,
        "attachment": refused_beyond,
    }  # fmt: skip
    p = schema.peers
    lengths = select(func.max(func.length(p.c.name)), func.max(func.length(p.c.handle)))
    longest = scene.bridge.ground.store.read_now(lambda tx: list(tx.execute(lengths).one()))
    assert longest[0] == 2_048
    assert longest[1] <= 200 + len("@127.0.0.1:65535")


def test_ghsa_rwcw_members_of_a_wrong_kind_are_dropped(scene: Scene, uploads: Uploads) -> None:
    uploads.media_type = ACTIVITY
    uploads.change = lambda actor: {
        **actor,
        "alsoKnownAs": [{}, 5, None, ["x"]],
        "attachment": [5, "x"],
        "tag": {},
        "icon": [5],
    }
    speaker = uploads.writer("odd")
    note = {**speaker.note(scene.post), "to": [{}, 5, None], "cc": {"id": 5}, "tag": [5, {}, "x"], "attachment": "x"}
    status = speaker.post(scene.inbox, speaker.activity("Create", note)).status_code
    assert status == 202 or 400 <= status < 500


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("<>/\"'=&;! abiprtsvgmathnoe:-\x00\u2028é😀"), max_size=300))
def test_ghsa_qrgq_the_cleaner_never_throws(markup: str) -> None:
    cleaned = text.clean(markup)
    assert text.clean(cleaned) == cleaned


SLOW = (
    "(" * 30_000,
    "[" * 30_000,
    "a" * 64_000,
    "@" * 64_000,
    "#" * 64_000,
    "https://" * 8_000,
    " \n" * 30_000,
    "." * 64_000,
    "a.a" * 20_000 + "@",
    "http://a" + ")" * 60_000,
    "&" * 64_000,
    "-" * 64_000,
)


def test_ghsa_jpxp_and_cve_2025_68475_no_text_keeps_us_busy() -> None:
    # A quadratic expression takes minutes here; the bound is not a measurement.
    began = time.monotonic()
    for hostile in SLOW:
        text.render(hostile, mentions={}, tag_url=str, profile_url=str)
        text.plain(hostile)
        for reading in (document.decode, lambda raw: incoming.read(document.decode(raw))):
            try:
                reading(
                    orjson.dumps(
                        {"@context": AS, "type": "Create", "id": hostile, "actor": hostile, "object": hostile}
                    )
                )
            except Invalid:
                continue
    assert time.monotonic() - began < 20


def test_akkoma_2023_08_and_pleroma_2_5_no_xml_is_read() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("xml", "lxml", "defusedxml", "bs4")], path


def test_akkoma_2024_03_media_of_ours_is_never_a_document(scene: Scene) -> None:
    answer = scene.bridge.get("/media/00/" + "0" * 64 + ".json")
    assert answer.status_code == 404
    assert not answer.headers["content-type"].startswith(ACTIVITY)


MINIMUM = {
    "starlette": (1, 0, 1),
    "nh3": (0, 3, 8),
    "cryptography": (50, 0, 0),
    "python-multipart": (0, 0, 34),
    "jinja2": (3, 1, 6),
}


def test_our_own_stack_is_locked_beyond_its_published_weaknesses() -> None:
    locked = dict(re.findall(r"(?m)^([a-z0-9-]+)==([0-9.]+)", (ROOT / "requirements.lock").read_text()))
    for name, least in MINIMUM.items():
        assert tuple(int(part) for part in locked[name].split(".")[:3]) >= least, name
    # CVE-2026-41425, CVE-2025-68158, CVE-2026-28802, CVE-2026-28498; RUSTSEC-2025-0071, CVE-2026-63430 are nh3's.
    assert not [path for path in (ROOT / "src").rglob("*.py") if "authlib" in path.read_text()]


def test_what_is_tested_elsewhere_is_there() -> None:
    for what, where in ELSEWHERE.items():
        file, _, name = where.partition("::")
        found = ROOT / file
        assert found.is_file(), what
        assert not name or re.search(rf"def {name}\(", found.read_text()), f"{what}: {where}"


def test_a_weakness_with_two_names_is_found_under_both() -> None:
    here = Path(__file__).read_text().partition("ALSO_CALLED = ")
    rest = here[0] + here[2].partition("# fmt: skip")[2]
    for name, known_as in ALSO_CALLED.items():
        assert known_as in rest, name


def test_errors_never_echo_markup(scene: Scene) -> None:
    """Bridgy Fed e1e7aee1: input in an error page."""
    for accept in ("text/html", ACTIVITY, "*/*"):
        answer = scene.bridge.get(f"/{quote('<script>alert(1)</script>')}", accept=accept)
        assert "<script>alert" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
