"""How rows of the server plane are written, and how a container (CLIENT, CONFIG …) finds its subcommand.

Guarantees: unknown subcommands and wrong arities fail with the texts of Redis; a subcommand's row is named
    ``container|subcommand`` as in COMMAND INFO and INFO commandstats.
Leaves to the caller: nothing has to call ``leaf``: running a container's row finds the subcommand by itself. Who counts
    or checks by subcommand calls ``leaf`` first and runs what it returns.
Reference: Redis `lookupSubcommand`, `addExtendedReplyHelp`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import Reply, Status
from kvservice.commands.table import NO_KEYS, Args, Command, Handler, KeySpec, Plane, flags
from kvservice.errors import RequestError

QUOTED_BYTES_MAX = 128
"""How much of a name from outside an error repeats, as in Redis."""

IMPLIED_CATEGORIES = {"admin": "admin dangerous", "readonly": "read", "fast": "fast"}


def server_row(
    name: str,
    run: ServerHandler | Handler,
    arity: int,
    words: str,
    categories: str,
    since: str,
    summary: str,
    *,
    group: str = "server",
    complexity: str = "O(1)",
    keys: KeySpec = NO_KEYS,
    plane: Plane = Plane.SERVER,
) -> Command:
    """Return a row; ``words`` are its flags, ``categories`` the ACL categories that do not follow from them."""
    its_flags = flags(words)
    implied = " ".join(IMPLIED_CATEGORIES[word] for word in IMPLIED_CATEGORIES if word in its_flags)
    its_categories = flags(f"{categories} {implied} {'' if 'fast' in its_flags else 'slow'}")
    handler = cast(Handler, run)  # the table's handlers are the data plane's, which never wait
    return Command(
        name, handler, arity, its_flags, keys, group, since, summary, complexity, its_categories, plane=plane
    )


def container(
    name: str,
    subcommands: Iterable[Command],
    since: str,
    summary: str,
    *,
    help_lines: str = "",
    help_categories: str = "",
    group: str = "server",
) -> Command:
    """Return the row of a container; ``help_lines`` makes its HELP subcommand."""
    rows = list(subcommands)
    if help_lines:
        rows.append(_help_row(name, help_lines, help_categories, group))
    by_name = {row.name.partition("|")[2].upper().encode(): row for row in rows}
    assert len(by_name) == len(rows), f"two subcommands of {name} have one name"
    own = Command(
        name,
        _run_leaf,
        -2,
        group=group,
        since=since,
        summary=summary,
        complexity="O(N) where N depends on the subcommand",
        categories=frozenset({"slow"}),
        plane=Plane.SERVER,
        subcommands=by_name,
    )

    def run(call: Any, args: Args) -> Reply:
        return leaf(own, args).run(call, args)

    object.__setattr__(own, "run", run)
    return own


def _run_leaf(call: Any, args: Args) -> Reply:
    raise AssertionError("a container's function is set when its row is made")


def leaf(row: Command, args: Args) -> Command:
    """Return the row that runs ``args``: its subcommand's, or ``row`` if it is no container. Raise RequestError."""
    if row.subcommands and len(args) > 1:
        found = row.subcommands.get(args[1].upper())
        if found is None:
            raise unknown_subcommand(row.name, args[1])
        row = found
    count = len(args)
    if count < row.arity_min or count > row.arity_max:
        raise row.arity_error()
    return row


def unknown_subcommand(container_name: str, subcommand: bytes) -> RequestError:
    """Return Redis's error for a subcommand that does not exist."""
    quoted = subcommand[:QUOTED_BYTES_MAX].decode("utf-8", "surrogateescape")
    return RequestError(f"unknown subcommand '{quoted}'. Try {container_name.upper()} HELP.")


def help_reply(name: str, lines: str) -> Reply:
    """Return HELP's reply; ``lines`` has one line for each line of the reply, subcommands unindented."""
    texts = [f"{name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    texts += lines.strip().splitlines()
    texts += ["HELP", "    Show this text."]
    return [Status(text.encode()) for text in texts]


def _help_row(name: str, lines: str, categories: str, group: str) -> Command:
    def run(_call: ServerCall, _args: Args) -> Reply:
        return help_reply(name, lines)

    return server_row(
        f"{name}|help", run, 2, "loading stale", categories, "5.0.0", "Lists the subcommands.", group=group
    )
