"""The values that settings take: how each is read from text, refused, and printed.

Guarantees: a parser takes what TOML, an environment variable or a flag can hold (`str`, `int`, `bool`) and returns the
    typed value, or raises `ValueError` whose text says what is allowed. `str(value)` or `format_*` of a value parses
    back to the same value.
Leaves to the caller: bounds of a particular setting (kvservice.config) and where the text came from.
Reference: Redis `memtoull` for sizes ("64mb" = 64 * 1024 * 1024, "64m" = 64 * 1000 * 1000).
"""

import ipaddress
import re
from pathlib import Path
from typing import NamedTuple

# Redis's own units: with a "b" they are powers of 1024, without it powers of 1000.
SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}
_SIZE = re.compile(r"([0-9]{1,19})([a-z]*)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_TRUE = frozenset({"yes", "true", "on", "1"})
_FALSE = frozenset({"no", "false", "off", "0"})
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class HostPort(NamedTuple):
    """A TCP address; port 0 asks the kernel for a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ClusterMember(NamedTuple):
    """One member of the first configuration: its node name and peer address."""

    name: str
    address: HostPort

    def __str__(self) -> str:
        return f"{self.name}={self.address}"


def parse_size(value: object) -> int:
    """Read a number of bytes: 65536, "64kb", "1gb", as Redis reads them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip().lower())
        if found is not None and found[2] in SIZE_UNITS:
            return int(found[1]) * SIZE_UNITS[found[2]]
    raise ValueError("not a size; write bytes as 1048576, or with a unit: 64kb, 16mb, 1gb")


def format_size(size: int) -> str:
    """Write a number of bytes with the largest unit that divides it."""
    for unit in ("gb", "mb", "kb"):
        factor = SIZE_UNITS[unit]
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_integer(value: object) -> int:
    """Read a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    raise ValueError("not a whole number")


def parse_switch(value: object) -> bool:
    """Read yes or no; true/false, on/off and 1/0 mean the same."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("neither yes nor no")


def format_switch(on: bool) -> str:
    """Write yes or no, as Redis does."""
    return "yes" if on else "no"


ANY_HOSTS = ("0.0.0.0", "::")


def parse_address(value: object) -> HostPort:
    """Read host:port; an IPv6 host stands in brackets, an empty host is refused rather than taken as "all"."""
    if isinstance(value, HostPort):
        return value
    text = value.strip() if isinstance(value, str) else ""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("not an address; write host:port with a port of 0 to 65535, for example 127.0.0.1:6379")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError("not an IPv6 address between the brackets") from error
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError("not an address; the host must be a name, an IPv4 address or an IPv6 address in brackets")
    return HostPort(host, int(port))


def is_reachable(address: HostPort) -> bool:
    """Tell whether others can connect to an address: not to any host, nor to a port that the system chooses."""
    return bool(address.port) and address.host not in ANY_HOSTS


def parse_reachable_address(value: object) -> HostPort:
    """Read host:port of something that others connect to."""
    address = parse_address(value)
    if not is_reachable(address):
        raise ValueError("an address that others cannot connect to; name a host, and a port of 1 to 65535")
    return address


def parse_optional_address(value: object) -> HostPort | None:
    """Read host:port that others connect to, or nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return parse_reachable_address(value)


def parse_addresses(value: object) -> tuple[HostPort, ...]:
    """Read host:port,… that others connect to; what stands twice counts once."""
    if isinstance(value, tuple):
        return tuple(parse_reachable_address(part) for part in value)
    if not isinstance(value, str):
        raise ValueError("not a list of addresses; write host:port,host:port")
    return tuple(dict.fromkeys(parse_reachable_address(part) for part in value.split(",") if part.strip()))


def format_addresses(addresses: tuple[HostPort, ...]) -> str:
    """Write addresses as `parse_addresses` reads them."""
    return ",".join(map(str, addresses))


def parse_optional_file(value: object) -> Path | None:
    """Read the path of a file, or nothing; whether it is there shows when it is read."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, (str, Path)):
        return Path(value)
    raise ValueError("not a path")


def parse_member_name(value: object) -> str:
    """Read a node name: what fits a DNS label, a file name and a metric label alike."""
    if isinstance(value, str) and _MEMBER_NAME.fullmatch(value):
        return value
    raise ValueError("not a node name; use 1 to 63 letters, digits, '.', '_' or '-', the first a letter or a digit")


def parse_members(value: object) -> tuple[ClusterMember, ...]:
    """Read name=host:port,…; each name and each address once."""
    if isinstance(value, tuple) and all(isinstance(member, ClusterMember) for member in value):
        return value
    if not isinstance(value, str):
        raise ValueError("not a list of members; write n1=host:port,n2=host:port")
    members: list[ClusterMember] = []
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        name, equals, address = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not a member; write name=host:port")
        try:
            members.append(ClusterMember(parse_member_name(name), parse_reachable_address(address)))
        except ValueError as error:
            raise ValueError(f"{part!r}: {error}") from error
    for kind, values in (("name", [member.name for member in members]), ("address", [str(m.address) for m in members])):
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"the {kind} {value} stands twice")
    return tuple(members)


def format_members(members: tuple[ClusterMember, ...]) -> str:
    """Write members as `parse_members` reads them."""
    return ",".join(str(member) for member in members)
