"""The entry point of `redan` and of `python -m kvservice`.

Guarantees: `redan serve` starts without typer, which costs 0.05 s and 4 MB; every other command goes to kvservice.cli.
    Exit codes: 0 clean, 1 failure, 2 usage or settings, 3 data directory damaged or in use.
"""

import os
import sys


def main() -> int:
    """Run the command line of this process; return its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        from kvservice.cli_settings import serve_command

        return serve_command(arguments[1:], os.environ)
    from kvservice.cli import run_command

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
