"""The command that looks for what is wrong."""

from __future__ import annotations

import asyncio

import typer

from threadbridge import doctor
from threadbridge.cli.terminal import (
    AsJson,
    load,
    out,
    print_json,
    shown,
)


def doctor_(as_json: AsJson = False) -> None:
    """Look for what is wrong with this installation, and say how to mend it.

    Example: threadbridge doctor
    """
    config = load()
    findings = asyncio.run(doctor.examine(config))
    if as_json:
        print_json(findings)
    else:
        marks = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "error": "[red]✗[/red]"}
        for finding in findings:
            out.print(f"{marks[finding.level]} {shown(finding.subject)}: {shown(finding.words)}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1 if config.base_url else 2)
