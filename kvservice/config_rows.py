"""What readers of a setting see of it: its row, made from the declaration in kvservice.config.

Guarantees: everything that names, documents, parses or prints a setting is in its row; nothing is declared twice.
Leaves to the caller: which settings there are (kvservice.config).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from pydantic import BeforeValidator, PlainValidator
from pydantic.fields import FieldInfo

from kvservice.config_values import (
    format_addresses,
    format_members,
    format_size,
    format_switch,
    parse_address,
    parse_addresses,
    parse_integer,
    parse_member_name,
    parse_members,
    parse_optional_address,
    parse_optional_file,
    parse_size,
    parse_switch,
)

ENVIRONMENT_PREFIX: Final = "REDAN_"
SECRET_CHARACTERS_MAX: Final = 512  # what Redis takes as a password; enough for any generated one


class SettingTraits(NamedTuple):
    """What pydantic does not keep of a setting."""

    section: str
    unit: str
    mutable: bool
    secret: bool
    aliases: tuple[str, ...]


class Setting(NamedTuple):
    """One setting as its readers see it; the rows of `kvservice.config.SETTINGS`."""

    field: str
    kind: str  # size, whole, switch, choice, address, …: see _kind_of
    default: object
    doc: str
    section: str
    unit: str
    least: int | None
    most: int | None
    choices: tuple[str, ...]
    mutable: bool
    secret: bool
    aliases: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The flag of `redan serve`."""
        return "--" + self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.field.upper()

    @property
    def allowed(self) -> str:
        """What the setting takes, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind in ("size", "whole"):
            write = format_size if self.kind == "size" else str
            what = "a size" if self.kind == "size" else "a whole number"
            unit = f" ({self.unit})" if self.unit and self.kind == "whole" else ""
            if self.most is None:
                return f"{what} of at least {write(self.least or 0)}{unit}"
            return f"{what} from {write(self.least or 0)} to {write(self.most)}{unit}"
        return _ALLOWED_BY_KIND[self.kind]

    def format(self, value: object) -> str:
        """Write a value of this setting as text that parses back to it."""
        match self.kind:
            case "size":
                return format_size(int(str(value)))
            case "switch":
                return format_switch(bool(value))
            case "members" if isinstance(value, tuple):
                return format_members(value)
            case "addresses" if isinstance(value, tuple):
                return format_addresses(value)
        return "" if value is None else str(value)


_ALLOWED_BY_KIND: Final[Mapping[str, str]] = {
    "switch": "yes or no",
    "address": "host:port",
    "optional address": "host:port, or nothing",
    "addresses": "host:port,…",
    "members": "name=host:port,…",
    "file": "the path of a file, or nothing",
    "name": "1 to 63 letters, digits, '.', '_' or '-'",
    "directory": "the path of a directory",
    "secret": f"at most {SECRET_CHARACTERS_MAX} characters",
}


def _kind_of(annotation: object, parser: object) -> str:
    """Name the kind of a field by the parser that stands in its annotation."""
    if get_origin(annotation) is Literal:
        return "choice"
    kinds: dict[object, str] = {
        parse_size: "size",
        parse_integer: "whole",
        parse_switch: "switch",
        parse_address: "address",
        parse_optional_address: "optional address",
        parse_addresses: "addresses",
        parse_optional_file: "file",
        parse_members: "members",
        parse_member_name: "name",
    }
    return kinds.get(parser, "directory" if annotation is Path else "secret")


def row_of(field: str, declared: FieldInfo) -> Setting:
    """Make a setting's row from its declaration."""
    extra = declared.json_schema_extra
    assert isinstance(extra, dict), f"{field} was not declared with _setting"
    traits: Any = extra["traits"]
    parser = next(
        (part.func for part in declared.metadata if isinstance(part, (BeforeValidator, PlainValidator))), None
    )
    bounds = {
        bound: getattr(part, bound) for part in declared.metadata for bound in ("ge", "le") if hasattr(part, bound)
    }
    kind = _kind_of(declared.annotation, parser)
    return Setting(
        field=field,
        kind=kind,
        default=declared.default,
        doc=declared.description or "",
        section=traits.section,
        unit=traits.unit,
        least=bounds.get("ge"),
        most=bounds.get("le"),
        choices=get_args(declared.annotation) if kind == "choice" else (),
        mutable=traits.mutable,
        secret=traits.secret,
        aliases=traits.aliases,
    )
