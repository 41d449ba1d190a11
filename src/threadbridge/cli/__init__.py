"""The command line. Every command works from any directory, without a terminal, on a plain install.

Rule: what went wrong is said in words on standard error, with what to do; a traceback only with `--debug`. Exit
status: 0 done · 1 refused or failed · 2 wrong usage or configuration · 130 interrupted. Remote text is printed with
its control characters removed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from threadbridge import __version__
from threadbridge.cli.later import Commands, Module, Root, typed
from threadbridge.cli.terminal import out, say_error, say_unforeseen, say_what_the_system_said, set_debug
from threadbridge.errors import BadConfiguration, ThreadbridgeError

# Each is imported when one of its commands is used: together they are most of the program.
accounts = Module("accounts")
archives = Module("archives")
blocks = Module("blocks")
certificates = Module("certificates")
followers = Module("followers")
health = Module("health")
held = Module("held")
hosts = Module("hosts")
keys = Module("keys")
profile = Module("profile")
queue = Module("queue")
receipts = Module("receipts")
relays = Module("relays")
reports = Module("reports")
running = Module("running")

COMMANDS: dict[str, Callable[..., object]] = {
    "serve": running.serve,
    "work": running.work,
    "demo": running.demo,
    "drill": running.drill,
    "sandbox": running.sandbox,
    "import": accounts.import_,
    "connect": accounts.connect,
    "accounts": accounts.list_accounts,
    "login-link": accounts.login_link,
    "export": archives.export,
    "verify": archives.verify_,
    "receipts": receipts.show,
    "certificate": certificates.certificate,
    "doctor": health.doctor_,
    "decisions": reports.list_decisions,
    "queue": queue.show_queue,
}
GROUPS: dict[str, tuple[str, dict[str, Callable[..., object]]]] = {
    "blocks": (
        "Who may speak here: rules, files of them, followed lists.",
        {
            "list": blocks.list_blocks,
            "add": blocks.add,
            "remove": blocks.remove,
            "import": blocks.import_list,
            "export": blocks.export_list,
            "preview": blocks.preview,
            "subscribe": blocks.subscribe,
            "unsubscribe": blocks.unsubscribe,
            "lists": blocks.lists,
        },
    ),
    "reports": (
        "Complaints from other servers, and ours to them.",
        {
            "list": reports.list_reports,
            "show": reports.show,
            "resolve": reports.resolve,
            "send": reports.send,
        },
    ),
    "accounts": (
        "The accounts: list them, rename or delete one.",
        {"rename": profile.rename, "delete": profile.delete, "undelete": profile.undelete},
    ),
    "profile": (
        "What an account's profile says beyond what comes from the source.",
        {
            "show": profile.show,
            "set": profile.set_,
            "field": profile.field,
            "header": profile.header,
            "alias": profile.alias,
        },
    ),
    "domain": (
        "Being found as @handle@example.org.",
        {"set": profile.set_domain, "check": profile.check_own_domain, "remove": profile.remove_domain},
    ),
    "keys": (
        "An account's signing keys: list them, change them.",
        {"list": keys.list_keys, "rotate": keys.rotate, "status": keys.status, "rollback": keys.rollback},
    ),
    "followers": (
        "Who follows an account: list, let in, turn away, remove.",
        {
            "list": followers.list_followers,
            "approve": followers.approve,
            "reject": followers.reject,
            "remove": followers.remove,
            "approval": followers.approval,
        },
    ),
    "queue": (
        "What waits to be sent: show it, take it back.",
        {"drop": queue.drop},
    ),
    "hosts": (
        "The servers that we deliver to: what is wrong with them, and what to do.",
        {
            "list": hosts.list_hosts,
            "show": hosts.show,
            "probe": hosts.probe,
            "replay": hosts.replay,
            "drop": hosts.drop,
            "forgive": hosts.forgive,
        },
    ),
    "held": (
        "New posts that wait before they leave: list them, send one now, do not share one.",
        {"list": held.list_held, "send": held.send, "cancel": held.cancel},
    ),
    "relays": (
        "Relays that carry public posts further.",
        {"add": relays.add, "remove": relays.remove, "list": relays.list_relays},
    ),
}
"""Commands of two words: `threadbridge GROUP COMMAND`, by group, with what the group is about. One that is a command
too does that when it stands alone."""


def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and everything in the log.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        out.print(f"threadbridge {__version__}")
        raise typer.Exit
    set_debug(debug)


def assembled() -> Root:
    """Everything that can be typed after `threadbridge`."""
    app = typer.Typer(
        cls=Root,
        name="threadbridge",
        help="A federated bridge: Threads accounts in the Fediverse, and everything stays their owners'.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        add_completion=False,
    )
    app.callback(invoke_without_command=True)(_root)
    root = typed(app, Root)
    root.commands = Commands(COMMANDS, GROUPS)
    return root


def main() -> None:
    """The console script: the only map from errors to exit codes."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        assembled()()  # wrong usage is said, and answered with 2, by typer itself
    except ThreadbridgeError as error:
        say_error(error)
        code = 2 if isinstance(error, BadConfiguration) else 1
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        code = say_what_the_system_said(error)
    except Exception as error:
        code = say_unforeseen(error)
    sys.exit(code)
