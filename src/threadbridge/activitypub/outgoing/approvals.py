"""Asking and letting: quote requests (FEP-044f), reply requests (GoToSocial), their answers, and the authorizations
that others look up."""

from __future__ import annotations

from datetime import datetime

from threadbridge.activitypub.ids import PUBLIC, Ids
from threadbridge.activitypub.outgoing.wording import (
    APPROVAL_CONTEXT,
    POST_CONTEXT,
    Document,
)


def request_said(kind: str, uri: str, peer_uri: str, post_uri: str, instrument: str) -> Document:
    """A received QuoteRequest or ReplyRequest as it is echoed: Mastodon 4.7 finds its own by this id alone."""
    return {"id": uri, "type": kind, "actor": peer_uri, "object": post_uri, "instrument": instrument}


def quote_request_said(uri: str, peer_uri: str, post_uri: str, instrument: str) -> Document:
    """A received QuoteRequest, from what is kept of it."""
    return request_said("QuoteRequest", uri, peer_uri, post_uri, instrument)


def accept_request(ids: Ids, account_id: int, request: Document, stamp: str, now: datetime) -> Document:
    """Accept of a request; `result` is the authorization that the asking post may then show."""
    return {
        "@context": APPROVAL_CONTEXT,
        "id": ids.accept(account_id, request["id"], now),
        "type": "Accept",
        "actor": ids.actor(account_id),
        "to": [request["actor"]],
        "object": request,
        "result": stamp,
    }


def reject_request(ids: Ids, account_id: int, request: Document, now: datetime) -> Document:
    """Reject of a request."""
    return {
        "@context": APPROVAL_CONTEXT,
        "id": ids.reject(account_id, request["id"], now),
        "type": "Reject",
        "actor": ids.actor(account_id),
        "to": [request["actor"]],
        "object": request,
    }


def accept_answer(ids: Ids, account_id: int, answer: Document, stamp: str, now: datetime) -> Document:
    """Accept of an answer that came without being asked for, told to the followers too: their servers know the
    policy, and would drop an answer of which they have not heard that it was let through (GoToSocial)."""
    return {
        "@context": APPROVAL_CONTEXT,
        "id": ids.accept(account_id, answer["id"], now),
        "type": "Accept",
        "actor": ids.actor(account_id),
        "to": [answer["author"]],
        "cc": [PUBLIC, ids.collection(account_id, "followers")],
        "object": answer["id"],
        "target": answer["target"],
        "result": stamp,
    }


def reject_answer(ids: Ids, account_id: int, answer: Document, now: datetime) -> Document:
    """Reject of an answer that came without being asked for, to its author."""
    return {
        "@context": APPROVAL_CONTEXT,
        "id": ids.reject(account_id, answer["id"], now),
        "type": "Reject",
        "actor": ids.actor(account_id),
        "to": [answer["author"]],
        "object": answer["id"],
        "target": answer["target"],
    }


def answer_said(uri: str, author: str, post_uri: str) -> Document:
    """An answer as `accept_answer` and `reject_answer` name it."""
    return {"id": uri, "author": author, "target": post_uri}


def quote_authorization(ids: Ids, account_id: int, number: int, quoting: str, quoted: str) -> Document:
    """The stamp: this post may be quoted by that one."""
    return _authorization("QuoteAuthorization", ids.quote_stamp(account_id, number), ids, account_id, quoting, quoted)


def reply_authorization(ids: Ids, account_id: int, number: int, answer: str, answered: str) -> Document:
    """The stamp of an answer that was let through."""
    return _authorization(
        "ReplyAuthorization", ids.reply_stamp(account_id, number), ids, account_id, answer, answered
    )


def _authorization(kind: str, uri: str, ids: Ids, account_id: int, interacting: str, target: str) -> Document:
    return {
        "@context": APPROVAL_CONTEXT,
        "id": uri,
        "type": kind,
        "attributedTo": ids.actor(account_id),
        "interactingObject": interacting,
        "interactionTarget": target,
    }


def delete_stamp(ids: Ids, account_id: int, number: int) -> Document:
    """The owner takes an authorization back."""
    stamp = ids.quote_stamp(account_id, number)
    return {
        "@context": APPROVAL_CONTEXT,
        "id": f"{stamp}#delete",
        "type": "Delete",
        "actor": ids.actor(account_id),
        "to": [PUBLIC],
        "cc": [ids.collection(account_id, "followers")],
        "object": {"id": stamp, "type": "QuoteAuthorization"},
    }


def quote_request(ids: Ids, account_id: int, post_id: int, quoted: str, author: str, quoting: Document) -> Document:
    """Ask an author whether a post of theirs may be quoted; our post goes along whole, since they may not have it."""
    return {
        "@context": [*POST_CONTEXT, *APPROVAL_CONTEXT[1:]],
        "id": ids.quote_request(account_id, post_id),
        "type": "QuoteRequest",
        "actor": ids.actor(account_id),
        "to": [author],
        "object": quoted,
        "instrument": quoting,
    }
