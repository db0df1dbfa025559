"""Where the values of settings come from: flags, environment, a TOML file, defaults; the first that has one wins.

Guarantees: a name that is no setting is refused, never passed over, with the nearest name that is one; a value that is
    refused is named with its source and what is allowed; all problems are told at once. A secret is never shown.
Leaves to the caller: splitting a command line into flags (kvservice.cli_settings) and printing `ConfigError.problems`.
Order: flag, then REDAN_… variable, then TOML file (`--config` or REDAN_CONFIG), then default.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from kvservice.config import SETTINGS, Config
from kvservice.config_rows import ENVIRONMENT_PREFIX, Setting

CONFIG_VARIABLE: Final = "REDAN_CONFIG"
# Read elsewhere, and by tests alone: kvservice.server kills itself at the named point.
CRASH_POINT_VARIABLE: Final = "REDAN_CRASH_POINT"
# A file that holds a password needs no more; the bound keeps a mistaken path (/dev/zero) from filling memory.
SECRET_FILE_BYTES_MAX: Final = 4096
# Far above a file with every setting and its comments (about 10 KiB).
TOML_FILE_BYTES_MAX: Final = 1024 * 1024

# Kubernetes puts variables of this form into each pod for a Service named "redan…"; they are not meant for us.
_SERVICE_LINK = re.compile(
    r"REDAN_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class ConfigError(Exception):
    """The settings were refused; `problems` has one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class Given(NamedTuple):
    """One value as a source gave it."""

    name: str  # of the setting, with '_' for '-'
    value: object
    where: str  # for messages: "--maxmemory", "REDAN_MAXMEMORY", "redan.toml: maxmemory"
    origin: str  # for `config print --origin`: "flag --maxmemory", "environment REDAN_MAXMEMORY", "file redan.toml"
    spell: Callable[[str], str]  # writes the name of a setting as this source writes names


class Loaded(NamedTuple):
    """A config and, by field, where each value came from: as `config print` and as messages name it."""

    config: Config
    origins: Mapping[str, str]
    places: Mapping[str, str]
    """Without those that have their default."""


def _names() -> Mapping[str, tuple[Setting, bool]]:
    """Map every name that a source may write to its setting and to whether it names a file with the value."""
    names: dict[str, tuple[Setting, bool]] = {}
    for setting in SETTINGS.values():
        for name in (setting.field, *(alias.replace("-", "_") for alias in setting.aliases)):
            names[name] = (setting, False)
        if setting.secret:
            names[setting.field + "_file"] = (setting, True)
    return names


NAMES: Final = _names()


def load_config(flags: Mapping[str, str], environ: Mapping[str, str], config_file: Path | None = None) -> Loaded:
    """Build the config of a node; raise ConfigError with every problem of every source.

    `flags` maps names with '_' for '-' and without the leading dashes to text.
    """
    problems: list[str] = []
    if config_file is None and environ.get(CONFIG_VARIABLE):
        config_file = Path(environ[CONFIG_VARIABLE])
    chosen: dict[str, Given] = {}
    for source in (_from_flags(flags), _from_environment(environ), _from_file(config_file, problems)):
        for field, given in _resolve(source, problems).items():
            chosen.setdefault(field, given)
    values = {field: given.value for field, given in chosen.items()}
    try:
        config = Config.model_validate(values)
    except ValidationError as refused:
        problems.extend(_explain(detail, chosen) for detail in refused.errors(include_url=False))
    if problems:
        raise ConfigError(problems)
    origins = {field: chosen[field].origin if field in chosen else "default" for field in SETTINGS}
    return Loaded(config, origins, {field: given.where for field, given in chosen.items()})


def unknown_name(where: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is no setting, and which known name is nearest."""
    import difflib  # only a refusal needs it

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{where}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


def flag_of(name: str) -> str:
    """Write the flag for a name of a setting."""
    return "--" + name.replace("_", "-")


def _variable_of(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _from_flags(flags: Mapping[str, str]) -> Iterator[Given]:
    for name, value in flags.items():
        yield Given(name, value, flag_of(name), f"flag {flag_of(name)}", flag_of)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in (CONFIG_VARIABLE, CRASH_POINT_VARIABLE):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == name.upper() and name.lower() in NAMES:
            name = name.lower()
        elif _SERVICE_LINK.fullmatch(variable):
            continue
        yield Given(name, value, variable, f"environment {variable}", _variable_of)


def _from_file(path: Path | None, problems: list[str]) -> Iterator[Given]:
    if path is None:
        return
    try:
        with path.open("rb") as file:
            raw = file.read(TOML_FILE_BYTES_MAX + 1)
        if len(raw) > TOML_FILE_BYTES_MAX:
            raise ValueError(f"longer than {TOML_FILE_BYTES_MAX} bytes")
        table = tomllib.loads(raw.decode())
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return
    except ValueError as error:  # not UTF-8, not TOML, too long
        problems.append(f"{path}: not a TOML file of settings: {error}")
        return
    for name, value in table.items():
        yield Given(name.replace("-", "_"), value, f"{path}: {name}", f"file {path}", str)


def _resolve(source: Iterator[Given], problems: list[str]) -> dict[str, Given]:
    """Map one source's values to fields; report names that are no setting and settings that stand twice."""
    found: dict[str, Given] = {}
    for given in source:
        known = NAMES.get(given.name)
        if known is None:
            problems.append(unknown_name(given.where, given.spell(given.name), map(given.spell, NAMES)))
            continue
        setting, is_file = known
        if setting.field in found:
            problems.append(f"{given.where}: {setting.field} is set already by {found[setting.field].where}")
            continue
        if is_file:
            secret = _read_secret(given, problems)
            if secret is None:
                continue
            given = given._replace(value=secret)
        found[setting.field] = given
    return found


def _read_secret(given: Given, problems: list[str]) -> str | None:
    """Read a secret from the file that was named; the end of the last line is not part of it."""
    try:
        with open(str(given.value), "rb") as file:
            raw = file.read(SECRET_FILE_BYTES_MAX + 1)
        if len(raw) > SECRET_FILE_BYTES_MAX:
            raise ValueError(f"longer than {SECRET_FILE_BYTES_MAX} bytes")
        secret = raw.decode().removesuffix("\n").removesuffix("\r")
        if not secret:
            raise ValueError("it is empty")
        return secret
    except OSError as error:
        problems.append(f"{given.where}: {given.value} cannot be read: {error.strerror}")
    except ValueError as error:
        problems.append(f"{given.where}: {given.value} does not hold a secret: {error}")
    return None


def _explain(detail: Mapping[str, Any], chosen: Mapping[str, Given]) -> str:
    """Say in one line what pydantic refused: the source, the value, and what is allowed."""
    reason = str(detail.get("ctx", {}).get("error", detail["msg"]))
    if not detail["loc"]:
        return f"settings do not fit together: {reason}"
    setting = SETTINGS[str(detail["loc"][0])]
    given = chosen[setting.field]
    shown = "the value" if setting.secret else repr(given.value)
    if setting.kind in ("address", "optional address", "addresses", "members", "name", "directory", "file"):
        return f"{given.where}: {shown} is refused: {reason}"
    return f"{given.where}: {shown} is refused; {setting.field} takes {setting.allowed}"
