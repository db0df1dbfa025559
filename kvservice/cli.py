"""The command line `redan`, all but what a server needs to start (kvservice.cli_settings).

Guarantees: exit codes 0 clean, 1 failure, 2 usage or settings, 3 data directory damaged or in use. Only `recover`
    changes a data directory: with `--yes`; without, it cuts a torn tail. A reader that goes away (`redan log DIR |
    head`) ends a command quietly.
Leaves to the caller: kvservice.__main__ sends `redan serve` elsewhere, to spare it this module's imports.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, Literal

import typer

from kvservice.cli_keys import app as ctl_app
from kvservice.cli_settings import (
    EXIT_CLEAN,
    EXIT_DATA_DIRECTORY,
    EXIT_FAILURE,
    EXIT_USAGE,
    config_print_command,
    serve_command,
)

app = typer.Typer(
    name="redan",
    help="A key-value service with the Redis API and the guarantees of a consensus log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show settings and examples of them.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(ctl_app, name="ctl")

# The commands that take every setting as a flag have a parser of their own, also for --help.
_TAKES_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

DataDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Data directory of a node.", show_default=False)]


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line without the program's name; return its exit code."""
    try:
        code = app(args=list(arguments), prog_name="redan", standalone_mode=True)
    except SystemExit as stopped:
        code = stopped.code
    return code if isinstance(code, int) else EXIT_CLEAN


@app.command(context_settings=_TAKES_SETTINGS, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Serve one node until SIGTERM or SIGINT; `redan serve --help` lists every setting."""
    raise typer.Exit(serve_command(context.args, os.environ))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def dev(
    context: typer.Context,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", metavar="N", min=1, max=9, help="How many; by default 3, or what DIR holds."),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Keep the data here; by default it is temporary.")
    ] = None,
) -> None:
    """Run a cluster on this machine until Ctrl-C; further flags go to every `redan serve`."""
    from kvservice.cli_dev import dev_command

    raise typer.Exit(dev_command(nodes, directory, context.args))


@app.command()
def recover(
    directory: DataDirectory,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the node.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")] = False,
) -> None:
    """Make a cluster of one out of a node that is stopped, when the majority is lost for good: writes may be lost."""
    from kvservice.cli_recover import recover_command

    _require_directory(directory)
    raise typer.Exit(recover_command(directory, name, is_confirmed=yes))


@app.command()
def simulate(
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="What the run follows from; by default any.")
    ] = None,
    hours: Annotated[
        float, typer.Option("--hours", metavar="H", min=0.001, max=100_000, help="Virtual hours of each run.")
    ] = 0.1,
    runs: Annotated[int, typer.Option("--runs", metavar="COUNT", min=1, help="Run so many seeds, from N on.")] = 1,
    trace: Annotated[
        int, typer.Option("--trace", metavar="LINES", min=0, max=300, help="Events shown of a run that failed.")
    ] = 60,
) -> None:
    """Run a cluster on simulated time, disks and network, where anything may fail; exit code 1 if it did wrong."""
    from kvservice.cli_simulate import simulate_command

    raise typer.Exit(simulate_command(seed, hours, runs, trace))


@config_app.command("print", context_settings=_TAKES_SETTINGS, add_help_option=False)
def config_print(context: typer.Context) -> None:
    """Show the settings that `redan serve` would use with the same arguments, and where they come from."""
    raise typer.Exit(config_print_command(context.args, os.environ))


@config_app.command("example")
def config_example(
    form: Annotated[Literal["env", "toml"], typer.Option("--format", help="Form of the example.")] = "toml",
) -> None:
    """Write every setting with its meaning and default, commented out."""
    from kvservice.config_files import example_environment, example_toml

    sys.stdout.write(example_environment() if form == "env" else example_toml())


@app.command()
def version() -> None:
    """Print the version."""
    print(f"redan {distribution_version('redan')}")


@app.command()
def verify(directory: DataDirectory) -> None:
    """Check every byte of a data directory; exit code 3 when something is damaged."""
    from kvservice.cli_verify import verify_directory
    from persistence.errors import DiskFailed

    _require_directory(directory)
    try:
        report = verify_directory(directory)
    except DiskFailed as error:
        print(f"redan: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILURE) from error
    columns = max(len(finding.file) for finding in report.findings)
    for finding in report.findings:
        print(f"{finding.file:<{columns}}  {finding.state:<9}  {finding.detail}")
    if not report.is_sound:
        print("redan: the data directory is damaged", file=sys.stderr)
        raise typer.Exit(EXIT_DATA_DIRECTORY)


@app.command()
def log(
    directory: DataDirectory,
    first_index: Annotated[int, typer.Option("--from", metavar="INDEX", min=0, help="First index to print.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line; bytes that are no UTF-8 as \\xNN.")
    ] = False,
) -> None:
    """Print the log: every entry with its commands as redis-cli would quote them."""
    from kvservice.cli_inspect import json_lines, text_lines
    from persistence.disk import RealDisk
    from persistence.errors import DiskFailed, StorageError
    from persistence.log_reading import read_log
    from replication.storage import decode_record

    _require_directory(directory)
    write = json_lines if as_json else text_lines
    try:
        for _, _, record in read_log(directory / "wal", RealDisk()):
            entry = decode_record(record)
            if entry.index >= first_index:
                for line in write(entry.kind, entry.index, entry.term, entry.stamp_ms, entry.payload):
                    print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has seen enough. What is still buffered has no reader, and the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except StorageError as error:
        sys.stdout.flush()
        print(f"redan: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILURE if isinstance(error, DiskFailed) else EXIT_DATA_DIRECTORY) from error


def _require_directory(directory: Path) -> None:
    if not directory.is_dir():
        print(f"redan: {directory}: no such directory", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE)
    if not (directory / "wal").is_dir():
        print(f"redan: {directory}: not a data directory of Redan (it has no wal/)", file=sys.stderr)
        raise typer.Exit(EXIT_FAILURE)
