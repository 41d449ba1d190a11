"""Certificates of erasure: what was deleted, which servers were told, when, and what each answered; signed.

    made = certify(tx, vault, ids, deletion)          # a document with an integrity proof (FEP-8b32)
    report = verify(Path("certificate.json"))         # offline, with the key that is in it

Rule: it says what is known now, and the same while nothing changes; it is signed by this server's own key, since that
of the account is destroyed. Beside the one signature it carries a digest of each entry, so that a check can name what
was changed. Its form: `docs/erasure-certificate.schema.json`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b32encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.delivery.retry import PATIENCE_LONG
from threadbridge.errors import Invalid, NotFound, SignatureRefused
from threadbridge.signatures import proofs
from threadbridge.signatures.keys import proof_key, verifying_key
from threadbridge.signatures.multikey import multibase_of, pem_of
from threadbridge.storage import certificates, farewells, keys
from threadbridge.storage.certificates import Deletion
from threadbridge.storage.rollups import Answer
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import Vault

Document = dict[str, Any]

KIND, VERSION = "ErasureCertificate", 1
SIZE_MAX = 256 << 20
_DIGITS = 16
"""Hex digits of the digest of an entry: they name what was changed; that something was, the signature says."""
_LISTS = ("objects", "hosts")
_MEMBERS = frozenset(
    {"@context", "type", "version", "actor", "key", "subject", "deletedAt", "asOf", "complete", "objects", "hosts",
     "counts", "digests", "proof"}
)  # fmt: skip


def certify(tx: Tx, vault: Vault, ids: Ids, deletion: Deletion) -> bytes:
    """The certificate of a deletion as JSON; once everybody has answered or was given up, the same bytes for ever."""
    told = certificates.answers(tx, deletion)
    hosts = list(_hosts(told, deletion))
    complete = deletion.told_at is not None and not any(host["state"] == "waiting" for host in hosts)
    ends = [answer[4] for answer in told if answer[4] is not None]
    as_of = datetime.fromtimestamp(max(ends), UTC) if complete and ends else tx.now
    if complete and not ends:
        as_of = deletion.told_at or tx.now
    subject = (
        {"type": "account", "id": ids.actor(deletion.account_id)}
        if deletion.post_id is None
        else {"type": "post", "id": ids.post(deletion.account_id, deletion.post_id)}
    )
    own, pem = keys.private_key(tx, vault, None, "ed25519")
    key = proof_key(f"{ids.instance}#{own.fragment}", pem)
    made: Document = {
        "@context": [outgoing.ACTIVITYSTREAMS],
        "type": KIND,
        "version": VERSION,
        "actor": ids.instance,
        "key": {"id": key.key_id, "publicKeyMultibase": multibase_of(own.public_pem)},
        "subject": subject,
        "deletedAt": _time(deletion.deleted_at),
        "asOf": _time(as_of),
        "complete": complete,
        "objects": [
            {
                "id": subject["id"] if said.post_id is None else ids.post(deletion.account_id, said.post_id),
                "said": said.kind,
                "at": _time(said.at),
                "sha256": said.digest,
            }
            for said in certificates.objects(tx, deletion)
        ],
        "hosts": hosts,
        "counts": _counts(hosts),
    }
    made["digests"] = {name: [_digest(entry) for entry in made[name]] for name in _LISTS} | {
        "subject": _digest(subject)
    }
    return outgoing.encode(proofs.prove(made, key, max(as_of, own.created_at)))


def _hosts(told: list[Answer], deletion: Deletion) -> Iterator[Document]:
    """One entry per server and answer; a server with several inboxes may have answered alike or not."""
    alike: dict[tuple[str, str, int | None], list[Answer]] = {}
    for answer in told:
        alike.setdefault((answer[0], answer[1], answer[2]), []).append(answer)
    for (host, state, status), some in sorted(
        alike.items(), key=lambda item: (item[0][0], item[0][1], str(item[0][2]))
    ):
        ends = [answer[4] for answer in some if answer[4] is not None]
        entry: Document = {
            "host": host,
            "state": state,
            "status": status,
            "inboxes": len(some),
            "attempts": max(answer[3] for answer in some),
            "at": _time(datetime.fromtimestamp(max(ends), UTC)) if ends else None,
        }
        if state == "waiting":
            next_tries = [answer[5] for answer in some if answer[5] is not None]
            entry["nextTryAt"] = _time(datetime.fromtimestamp(min(next_tries), UTC)) if next_tries else None
            entry["triedUntil"] = _time(deletion.deleted_at + PATIENCE_LONG)
        yield entry


def _counts(hosts: list[Document]) -> dict[str, int]:
    figures: Counter[str] = Counter()
    for entry in hosts:
        figures[str(entry["state"])] += int(entry["inboxes"])
    return dict(sorted(figures.items()))


def _digest(entry: Any) -> str:
    return proofs.digest(entry)[:_DIGITS]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ── who may have one ─────────────────────────────────────────────────────────────────────────────────────────────


def of_post(tx: Tx, vault: Vault, ids: Ids, account_id: int, post_id: int) -> bytes:
    """The certificate of a post that this account deleted. Raises NotFound."""
    deletion = certificates.of(tx, account_id, post_id)
    if deletion is None:
        raise NotFound("There is no certificate of that", hint="A post has one when it is deleted.")
    return certify(tx, vault, ids, deletion)


def of_account(tx: Tx, vault: Vault, ids: Ids, account_id: int) -> bytes:
    """The certificate of a deleted account. Raises NotFound."""
    deletion = certificates.of(tx, account_id, None)
    if deletion is None:
        raise NotFound("There is no certificate of that", hint="An account has one when its deletion has begun.")
    return certify(tx, vault, ids, deletion)


def code(tx: Tx, vault: Vault, account_id: int) -> str | None:
    """The confirmation code of a deletion that was asked for: who has it may have the certificate, when nobody can
    sign in any more. Made from the secret key, so that nothing of it is stored."""
    held = farewells.of_account(tx, account_id)
    if held is None:
        return None
    about = f"{account_id} {held.asked_at.isoformat()}".encode()
    made = hmac.new(vault.derive("erasure code"), about, hashlib.sha256).digest()[:20]
    return b32encode(made).decode().lower()


def by_code(tx: Tx, vault: Vault, ids: Ids, account_id: int, given: str) -> bytes:
    """The certificate of a deleted account, for whoever has its code. Raises NotFound, whatever is wrong."""
    right = code(tx, vault, account_id)
    if right is None or not hmac.compare_digest(right.encode(), given.strip().lower().encode()):
        raise NotFound("There is nothing here")
    return of_account(tx, vault, ids, account_id)


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: `what` in words, `where` names the place in the certificate."""

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """What was found. `key` is the public key with which it verifies; that it is the server's, the server's actor
    document says (`signed_by` is its address)."""

    problems: tuple[Problem, ...]
    subject: str | None = None
    signed_by: str | None = None
    key: str | None = None
    as_of: str | None = None
    complete: bool | None = None
    objects: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def looks_like_one(path: Path) -> bool:
    """Whether a file is JSON rather than a ZIP, by its first byte."""
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip()[:1] == b"{"
    except OSError:
        return False


def verify(path: Path) -> CertificateReport:
    """Check a certificate offline. Never raises: what cannot be read is a problem in the report."""
    try:
        with open(path, "rb") as file:
            body = file.read(SIZE_MAX + 1)
        return check(_decode(body))
    except Invalid as error:
        return CertificateReport((Problem(str(error), "the certificate"),))
    except OSError as error:
        return CertificateReport((Problem(f"It cannot be read: {error.strerror or error}", "the certificate"),))
    except Exception as error:
        # The last net: a report is owed for hostile files too.
        return CertificateReport((Problem(f"It cannot be understood ({type(error).__name__})", "the certificate"),))


def check(made: Document) -> CertificateReport:
    """The same of a decoded certificate. Raises Invalid for what is none."""
    if made.get("type") != KIND or made.get("version") != VERSION:
        raise Invalid("It is no erasure certificate, or of another version")
    problems = [Problem("It does not belong in a certificate", name) for name in sorted(made.keys() - _MEMBERS)]
    problems += [Problem("It is missing", name) for name in sorted(_MEMBERS - made.keys())]
    if problems:
        return CertificateReport(tuple(problems))
    digests = made["digests"]
    if digests.get("subject") != _digest(made["subject"]):
        problems.append(Problem("It was changed after it was signed", "subject"))
    for name in _LISTS:
        entries, wanted = made[name], digests.get(name)
        if len(entries) != len(wanted):
            problems.append(Problem(f"It has {len(entries)} entries where {len(wanted)} were signed", name))
        for place, (entry, digest) in enumerate(zip(entries, wanted, strict=False)):
            if _digest(entry) != digest:
                what = entry.get("id") or entry.get("host")
                problems.append(Problem(f"It was changed after it was signed ({what})", f"{name}[{place}]"))
    if made["counts"] != _counts(made["hosts"]):
        problems.append(Problem("Its figures are not those of its hosts", "counts"))
    if made["complete"] and made["counts"].get("waiting"):
        problems.append(Problem("It says that nothing is tried any more, and lists hosts that wait", "complete"))
    problems += _check_signature(made)
    return CertificateReport(
        tuple(problems[:200]), str(made["subject"].get("id")), str(made["actor"]),
        str(made["key"].get("publicKeyMultibase")), str(made["asOf"]), bool(made["complete"]), len(made["objects"]),
        {str(name): int(count) for name, count in made["counts"].items()},
    )  # fmt: skip


def _check_signature(made: Document) -> list[Problem]:
    try:
        claim = proofs.read_proof(made, now=None)
    except (SignatureRefused, Invalid) as error:
        return [Problem(str(error), "proof")]
    key = made["key"]
    if claim is None or claim.key_id != key.get("id") or claim.actor != made["actor"]:
        return [Problem("It was not signed with the key that it names", "key")]
    pem = pem_of(str(key.get("publicKeyMultibase")))
    if pem is None:
        return [Problem("It is no public key", "key")]
    parsed = verifying_key(pem)
    if parsed.kind != "ed25519" or not any(parsed.verify(claim.signature, text) for text in claim.signing_strings):
        return [Problem("The signature does not hold: something was changed after it was signed", "proof")]
    return []


def _decode(body: bytes) -> Document:
    if len(body) > SIZE_MAX:
        raise Invalid(f"It is larger than {SIZE_MAX >> 20} MB")
    try:
        made = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("It is not valid JSON", detail=str(error)[:200]) from None
    if not isinstance(made, dict):
        raise Invalid("It is not a JSON object")
    return made


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
