"""The commands that take every setting as a flag: `redan serve` and `redan config print`.

Guarantees: there is one flag for each setting, and its help is the setting's own documentation, so that
    `redan serve --help` is the reference; usage and settings that are refused end with exit code 2 and one line each.
Leaves to the caller: all other commands (kvservice.cli). They import typer, which a server does not need: this module
    stands apart so that neither its start nor its memory pays for it.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from kvservice.config import SECTIONS, SETTINGS
from kvservice.config_load import CONFIG_VARIABLE, ConfigError, Loaded, load_config, unknown_name
from kvservice.config_rows import Setting
from kvservice.grpc_poller import keep_quiet, prefer_poller

EXIT_CLEAN: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_DATA_DIRECTORY: Final = 3

_METAVARS: Final[Mapping[str, str]] = {
    "size": "SIZE",
    "whole": "N",
    "switch": "yes|no",
    "address": "HOST:PORT",
    "optional address": "HOST:PORT",
    "addresses": "HOST:PORT,…",
    "file": "FILE",
    "members": "NAME=HOST:PORT,…",
    "name": "NAME",
    "directory": "DIR",
    "secret": "TEXT",
}


class _SettingsParser(argparse.ArgumentParser):
    """A parser that reports misuse as the loader does, instead of printing its usage of forty lines."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError([message])


def serve_command(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `redan serve`; return the exit code."""
    from kvservice.certificates import check_certificates  # with OpenSSL, which no other command needs

    parser = _parser("redan serve", "Serve one node of a cluster until SIGTERM or SIGINT.")
    try:
        loaded, _ = _parse(parser, arguments, environ)
        check_certificates(loaded)
    except ConfigError as error:
        return report(error)
    prefer_poller(os.environ)
    keep_quiet(os.environ)
    from kvservice.server import run  # after the settings are known to be lawful: a refusal should be instant

    return run(loaded.config)


def config_print_command(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `redan config print`; return the exit code."""
    parser = _parser("redan config print", "Show the settings that `redan serve` would use with the same arguments.")
    parser.add_argument("--origin", action="store_true", default=False, help="also say where each value came from")
    parser.add_argument("-o", "--output", choices=("toml", "json"), default="toml", help="form (default: toml)")
    try:
        loaded, chosen = _parse(parser, arguments, environ)
    except ConfigError as error:
        return report(error)
    from kvservice.config_files import print_json, print_toml

    write = print_json if chosen.output == "json" else print_toml
    sys.stdout.write(write(loaded, with_origin=chosen.origin))
    return EXIT_CLEAN


def report(error: ConfigError) -> int:
    """Print each problem on a line of its own; return the exit code for usage."""
    for problem in error.problems:
        print(f"redan: {problem}", file=sys.stderr)
    return EXIT_USAGE


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    parser = _SettingsParser(
        prog=program,
        usage=f"{program} [--config FILE] [--SETTING VALUE]...",
        description=description,
        epilog="Precedence: flag, then REDAN_… variable, then TOML file, then default. Sizes take kb, mb, gb.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    parser.add_argument("--config", metavar="FILE", help=f"TOML file of settings (also: {CONFIG_VARIABLE})")
    for section, title in SECTIONS.items():
        group = parser.add_argument_group(title)
        for setting in SETTINGS.values():
            if setting.section == section:
                _add_flags(group, setting)
    return parser


def _add_flags(group: argparse._ArgumentGroup, setting: Setting) -> None:
    names = (setting.flag, *(f"--{alias}" for alias in setting.aliases))
    metavar = "|".join(setting.choices) if setting.choices and len(setting.choices) < 4 else _METAVARS.get(setting.kind)
    default = "" if setting.secret else f" [default: {setting.format(setting.default) or 'empty'}]"
    text = f"{setting.doc} Takes {setting.allowed}.{default}".replace("%", "%%")
    group.add_argument(*names, dest=setting.field, metavar=metavar or "WORD", help=text)
    if setting.secret:
        file_flag = f"{setting.flag}-file"
        group.add_argument(
            file_flag, metavar="FILE", help=f"A file that holds it; unlike {setting.flag}, not seen by ps."
        )


def _parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str], environ: Mapping[str, str]
) -> tuple[Loaded, argparse.Namespace]:
    """Split the arguments and load the settings; raise ConfigError for either."""
    chosen, rest = parser.parse_known_args(arguments)
    flags = {name: value for name, value in vars(chosen).items() if name not in ("config", "origin", "output")}
    problems: list[str] = []
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    for argument in rest:
        if argument.startswith("-"):
            flag = argument.partition("=")[0]
            problems.append(unknown_name(flag, flag, known))
        elif not problems:  # what follows an unknown flag is most likely its value
            problems.append(f"unexpected argument '{argument}'")
    if problems:
        raise ConfigError(problems)
    config_file = Path(chosen.config) if "config" in chosen else None
    return load_config(flags, environ, config_file), chosen
