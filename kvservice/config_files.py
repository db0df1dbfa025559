"""Settings as text: the commented examples of a new installation, and what a configuration came to.

Guarantees: the examples name every setting with its meaning, bounds and default, and change nothing until a line is
    uncommented. What `print_*` writes can be read back by kvservice.config_load, except for secrets: they are hidden.
Leaves to the caller: writing the text to a file (`make config-files`).
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Final

from kvservice.config import SECTIONS, SETTINGS
from kvservice.config_load import CONFIG_VARIABLE, Loaded
from kvservice.config_rows import Setting

HIDDEN: Final = "[hidden]"
_COMMENT_COLUMNS: Final = 100

_ENVIRONMENT_HEAD: Final = f"""\
# Settings of a Redan node as environment variables, with their defaults.
# For `docker compose`, an EnvironmentFile of systemd, or a shell: set -a; . ./.env; set +a
# Precedence: flag of `redan serve`, then variable, then TOML file ({CONFIG_VARIABLE} names it), then default.
# Written by `redan config example --format env`.
"""
_TOML_HEAD: Final = """\
# Settings of a Redan node, with their defaults. Use: redan serve --config redan.toml
# Precedence: flag of `redan serve`, then REDAN_... variable, then this file, then default.
# Sizes: 1048576, "64kb", "16mb", "1gb" (powers of 1024; "64k" and "16m" are powers of 1000).
# Written by `redan config example --format toml`.
"""


def example_environment() -> str:
    """Return the text of `.env.example`."""
    lines = [_ENVIRONMENT_HEAD]
    for section, settings in _by_section():
        lines.append(f"# ---- {section}\n")
        for setting in settings:
            lines += [*_comment(setting), f"#{setting.variable}={setting.format(setting.default)}"]
            if setting.secret:
                lines.append(f"#{setting.variable}_FILE=  # a file that holds it")
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def example_toml() -> str:
    """Return the text of `redan.toml`."""
    lines = [_TOML_HEAD]
    for section, settings in _by_section():
        lines.append(f"# ---- {section}\n")
        for setting in settings:
            lines += [*_comment(setting), f"#{setting.field} = {_toml_value(setting, setting.default)}"]
            if setting.secret:
                lines.append(f'#{setting.field}_file = ""  # a file that holds it')
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def print_toml(loaded: Loaded, *, with_origin: bool) -> str:
    """Return the effective settings as TOML, each with its origin as a comment when asked."""
    rows = [(f"{setting.field} = {_toml_value(setting, value)}", setting) for setting, value in _effective(loaded)]
    if not with_origin:
        return "".join(f"{row}\n" for row, _ in rows)
    columns = max(len(row) for row, _ in rows)
    return "".join(f"{row:<{columns}}  # {loaded.origins[setting.field]}\n" for row, setting in rows)


def print_json(loaded: Loaded, *, with_origin: bool) -> str:
    """Return the effective settings as one JSON object: by name the value, or value and origin when asked."""
    printed: dict[str, object] = {}
    for setting, value in _effective(loaded):
        plain = value if setting.kind in ("size", "whole", "switch") else setting.format(value)
        printed[setting.field] = {"value": plain, "origin": loaded.origins[setting.field]} if with_origin else plain
    return json.dumps(printed, indent=2, ensure_ascii=False) + "\n"


def _effective(loaded: Loaded) -> Iterator[tuple[Setting, object]]:
    for setting in SETTINGS.values():
        value = getattr(loaded.config, setting.field)
        yield setting, HIDDEN if setting.secret and value else value


def _by_section() -> Iterator[tuple[str, list[Setting]]]:
    for section, title in SECTIONS.items():
        yield title, [setting for setting in SETTINGS.values() if setting.section == section]


def _comment(setting: Setting) -> list[str]:
    text = f"{setting.doc} Takes {setting.allowed}."
    return [f"# {line}" for line in textwrap.wrap(text, _COMMENT_COLUMNS - 2)]


def _toml_value(setting: Setting, value: object) -> str:
    if setting.kind == "whole":
        return str(value)
    if setting.kind == "switch":
        return "true" if value else "false"
    # JSON's escapes are among those of a basic TOML string.
    return json.dumps(setting.format(value), ensure_ascii=False).replace("\x7f", "\\u007f")
