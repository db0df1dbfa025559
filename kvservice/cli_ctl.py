"""`redan ctl`: the state of a cluster and changes of its members, over the gRPC plane of any node.

Guarantees: exit codes 0 done (status: every member answers, none diverges, and one leads), 1 not done, 2 usage. What is
printed with `-o json` is one JSON document. Nothing is asked before the arguments are known to be lawful.
Leaves to the caller: finding the leader (kvservice.cluster.client). grpc is imported when a command runs: the help of
`redan` does not pay for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from kvservice.cli_settings import EXIT_FAILURE, EXIT_USAGE
from kvservice.config_values import parse_member_name, parse_reachable_address

if TYPE_CHECKING:
    from kvservice.cluster.client import ClusterClient

app = typer.Typer(help="See and change a running cluster.", no_args_is_help=True)

DEFAULT_ENDPOINT: Final = "127.0.0.1:7400"
PASSWORD_BYTES_MAX: Final = 4096

Form = Literal["table", "json"]
Endpoints = Annotated[
    list[str],
    typer.Option(
        "--endpoint", metavar="HOST:PORT", help="grpc_addr of a node; may be given several times, the next is tried."
    ),
]
Output = Annotated[Form, typer.Option("-o", "--output", help="Form.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="A file that holds the password (requirepass).")
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=0.1, max=3600, help="For all attempts; 5 at most for a leader."),
]
NodeName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the node.", show_default=False)]

_ENDPOINTS: Final = [DEFAULT_ENDPOINT]


@app.command()
def status(
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 10.0,
) -> None:
    """Show every member, as it sees itself and as the leader sees it; exit code 1 if something is wrong."""
    from kvservice.cluster.overview import HEADINGS, overview

    seen = _attempt(lambda: overview(_client(endpoint, password_file, timeout), endpoint))
    if output == "json":
        print(json.dumps(seen.as_json(), indent=2))
    else:
        print(f"cluster {seen.cluster_id}, {'leader ' + seen.leader if seen.leader else 'no leader'}")
        print(table(HEADINGS, seen.rows()))
    for problem in seen.problems:
        print(f"redan: {problem}", file=sys.stderr)
    if seen.problems:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
def members(
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 10.0,
) -> None:
    """List the members."""
    from redan.cluster.v1 import cluster_pb2

    client = _client(endpoint, password_file, timeout)
    _print_members(_attempt(lambda: client.call("ListMembers", cluster_pb2.ListMembersRequest())).members, output)


@app.command()
def add(
    name: NodeName,
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Its peer address.", show_default=False)],
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 20.0,
) -> None:
    """Add a node as a learner, without a vote; or change the peer address of a member."""
    from redan.cluster.v1 import cluster_pb2

    request = cluster_pb2.AddMemberRequest(name=checked(parse_member_name, name), peer_address=address)
    checked(parse_reachable_address, address)
    client = _client(endpoint, password_file, timeout)
    _print_members(_attempt(lambda: client.call("AddMember", request)).members, output)


@app.command()
def promote(
    name: NodeName,
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 60.0,
) -> None:
    """Give a learner a vote, once it has caught up."""
    from google.protobuf.duration_pb2 import Duration

    from redan.cluster.v1 import cluster_pb2

    # The node gives up a little earlier, so that its own words are what is shown.
    catch_up = Duration(nanos=int(timeout * 0.8e9) % 1_000_000_000, seconds=int(timeout * 0.8))
    request = cluster_pb2.PromoteMemberRequest(name=checked(parse_member_name, name), catch_up_timeout=catch_up)
    client = _client(endpoint, password_file, timeout)
    _print_members(_attempt(lambda: client.call("PromoteMember", request)).members, output)


@app.command()
def remove(
    name: NodeName,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the members that answer would be no majority of the rest.")
    ] = False,
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 20.0,
) -> None:
    """Remove a member; a leader hands over first. Stop its process afterwards."""
    from redan.cluster.v1 import cluster_pb2

    request = cluster_pb2.RemoveMemberRequest(name=checked(parse_member_name, name), force=force)
    client = _client(endpoint, password_file, timeout)
    _print_members(_attempt(lambda: client.call("RemoveMember", request)).members, output)


@app.command()
def transfer(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The next leader; by default the one that is furthest.")
    ] = "",
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 20.0,
) -> None:
    """Make another voter the leader."""
    from redan.cluster.v1 import cluster_pb2

    request = cluster_pb2.TransferLeadershipRequest(name=checked(parse_member_name, name) if name else "")
    client = _client(endpoint, password_file, timeout)
    response = _attempt(lambda: client.call("TransferLeadership", request))
    if output == "json":
        print(json.dumps({"leader": response.leader, "term": response.term}))
    else:
        print(f"{response.leader} leads")


@app.command()
def snapshot(
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: Timeout = 600.0,
) -> None:
    """Write a snapshot on the node of each endpoint."""
    from redan.cluster.v1 import cluster_pb2

    taken = []
    for one in endpoint:
        client = _client([one], password_file, timeout)
        response = _attempt(lambda client=client: client.call("TakeSnapshot", cluster_pb2.TakeSnapshotRequest()))
        taken.append((one, response.last_index, response.bytes))
    if output == "json":
        print(json.dumps([{"endpoint": one, "last_index": index, "bytes": size} for one, index, size in taken]))
    else:
        print(table(("ENDPOINT", "INDEX", "BYTES"), [(one, str(index), str(size)) for one, index, size in taken]))


def _client(endpoints: Sequence[str], password_file: Path | None, timeout_seconds: float) -> ClusterClient:
    from kvservice.cluster.client import ClusterClient

    for endpoint in endpoints:
        checked(parse_reachable_address, endpoint)
    return ClusterClient(endpoints, password=read_password(password_file), timeout_seconds=timeout_seconds)


def read_password(file: Path | None) -> str:
    """Return the password in a file, "" without one; end with the exit code for usage if it is of no use."""
    if file is None:
        return ""
    try:
        with file.open("rb") as opened:
            password = opened.read(PASSWORD_BYTES_MAX).decode("latin-1").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        print(f"redan: {file} cannot be read: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from error
    if not (password.isascii() and password.isprintable()):
        print(f"redan: {file} has characters that gRPC cannot carry: it takes printable ASCII", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE)
    return password


def checked(parse: Any, text: str) -> str:
    """Return the text if it parses; end with the exit code for usage if not."""
    try:
        parse(text)
    except ValueError as error:
        print(f"redan: {text!r} is {error}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from error
    return text


def _attempt(call: Any) -> Any:
    """Return what a call returns; print why it failed and end if it does."""
    from kvservice.cluster.client import CallFailed

    try:
        return call()
    except CallFailed as error:
        print(f"redan: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILURE) from error


def _print_members(rows: Any, form: Form) -> None:
    if form == "json":
        keys = ("name", "voter", "leader", "peer_address", "resp_address", "grpc_address")
        print(json.dumps([{key: getattr(row, key) for key in keys} for row in rows], indent=2))
        return
    lines = [
        (
            row.name,
            "leader" if row.leader else "voter" if row.voter else "learner",
            row.peer_address or "-",
            row.resp_address or "-",
            row.grpc_address or "-",
        )
        for row in rows
    ]
    print(table(("NAME", "ROLE", "PEER", "RESP", "GRPC"), lines))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under headings, in columns as wide as their longest cell."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
