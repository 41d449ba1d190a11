"""What commands and the demo tell people about an import, an archive, a check: plain lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from threadbridge.portability.archive import ArchiveSummary
from threadbridge.portability.certificates import CertificateReport
from threadbridge.portability.imports import ImportSummary
from threadbridge.portability.verify import VerifyReport


def import_lines(summary: ImportSummary) -> Iterator[str]:
    """Posts, replies, media found and missing, contacts, and what was skipped, with the reasons."""
    verb = "Would import" if summary.dry_run else "Imported"
    yield f"{verb} into @{summary.handle}:"
    yield f"  posts    {summary.posts_new} new, {summary.posts_known} known"
    yield f"  replies  {summary.replies_new} new, {summary.replies_known} known"
    refused = sum(summary.media_refused.values())
    tail = f", {refused} refused" if refused else ""
    yield f"  media    {summary.media_found} found, {summary.media_missing} missing{tail}"
    if summary.media_missing:
        yield "           another numbered part of the download may hold them: import it too, and the gaps are filled"
    for reason, count in sorted(summary.media_refused.items()):
        yield f"           {count} × {reason}"
    people = summary.contacts_new + summary.contacts_known
    if people:
        counted = ", ".join(f"{count} {relation}" for relation, count in sorted(people.items()))
        yield f"  people   {counted} (kept for the archive)"
    yield f"  skipped  {sum(summary.skipped.values())}"
    for reason, count in sorted(summary.skipped.items()):
        yield f"           {count} × {reason}"
    for where in summary.skipped_where[:5]:
        yield f"           e.g. {where}"
    for name, reason in summary.unsafe[:10]:
        yield f"  left out: {name}: {reason}"


def archive_lines(summary: ArchiveSummary, path: str) -> Iterator[str]:
    """Where the archive is, how large, and what it holds."""
    yield f"Wrote {path}: {summary.size:,} bytes, {summary.members:,} files"
    yield f"  SHA-256  {summary.sha256}"
    yield f"  holds    {_counted(summary.counts)}"
    if summary.omissions:
        files = "1 file" if summary.omissions == 1 else f"{summary.omissions:,} files"
        yield f"  {files} could not be included; manifest.json names each with the reason"


def _counted(counts: Mapping[str, int]) -> str:
    """'1 post, 12 replies': without what there is none of."""
    parts = (f"{count:,} {_one(what) if count == 1 else what}" for what, count in counts.items() if count)
    return ", ".join(parts) or "nothing"


def _one(what: str) -> str:
    """The singular of what an archive counts."""
    if what.endswith("ies"):
        return f"{what[:-3]}y"
    return what[:-1] if what.endswith("s") else what


def verify_lines(report: VerifyReport) -> Iterator[str]:
    """The verdict, or everything that is wrong."""
    if report.ok:
        counted = _counted(report.counts)
        yield f"Whole: {report.members:,} files of @{report.handle}, as of {report.as_of}"
        yield f"  holds    {counted}"
        return
    number = len(report.problems) + report.more
    yield f"Not whole: {number} {'problem' if number == 1 else 'problems'}"
    for problem in report.problems:
        yield f"  {problem.where}: {problem.what}"
    if report.more:
        yield f"  and {report.more} more"


def certificate_lines(report: CertificateReport) -> Iterator[str]:
    """The verdict about a certificate of erasure, or everything that is wrong."""
    if report.ok:
        counted = ", ".join(f"{count:,} {state}" for state, count in report.counts.items()) or "no server"
        yield f"Holds: the erasure of {report.subject}, as of {report.as_of}"
        yield f"  objects  {report.objects:,}"
        yield f"  servers  {counted}{'' if report.complete else ' (not at its end)'}"
        yield f"  key      {report.key}"
        yield f"           compare it with what {report.signed_by} publishes"
        return
    number = len(report.problems)
    yield f"Does not hold: {number} {'problem' if number == 1 else 'problems'}"
    for problem in report.problems:
        yield f"  {problem.where}: {problem.what}"
