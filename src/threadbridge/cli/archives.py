"""Commands that take everything away, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from threadbridge import reports
from threadbridge.cli.terminal import (
    AsJson,
    ground,
    print_json,
    print_lines,
    progress,
)
from threadbridge.errors import NotFound
from threadbridge.portability import certificates, exports, verify
from threadbridge.portability.certificates import CertificateReport
from threadbridge.portability.verify import VerifyReport


def export(
    handle: Annotated[str, typer.Argument(help="The account.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ZIP to write.")],
    as_json: AsJson = False,
) -> None:
    """Write everything an account has into one ZIP that other software reads.

    Example: threadbridge export alice --output alice.zip
    """
    with ground() as opened, progress("Writing", quiet=as_json) as report:
        summary = exports.export_now(
            opened.store,
            opened.ids,
            opened.media,
            handle,
            output,
            lambda phase, done, total: report(done, total=total, description=f"Writing {phase}"),
        )
    if as_json:
        print_json(summary)
    else:
        print_lines(reports.archive_lines(summary, str(output)))


def verify_(
    file: Annotated[Path, typer.Argument(help="The archive, or a certificate of erasure.")],
    as_json: AsJson = False,
) -> None:
    """Check an archive offline: every hash, every count, every reference. Names what is wrong. A certificate of
    erasure is checked too, with the key that is in it.

    Example: threadbridge verify alice.zip
    """
    if not file.is_file():
        what = "a folder" if file.is_dir() else "not there"
        raise NotFound(f"{file} is {what}", hint="Give an archive (a ZIP), or a certificate of erasure (JSON).")
    report: VerifyReport | CertificateReport
    if certificates.looks_like_one(file):
        report = certificates.verify(file)
        lines = reports.certificate_lines(report)
    else:
        report = verify.verify(file)
        lines = reports.verify_lines(report)
    if as_json:
        print_json(report)
    else:
        print_lines(lines)
    if not report.ok:
        raise typer.Exit(1)
