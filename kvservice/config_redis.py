"""Redis's names for our settings, and CONFIG GET and CONFIG SET on them.

Guarantees: a value is printed as Redis prints it (bytes as a number, yes and no); CONFIG SET changes all that it was
    given or nothing; a refusal carries the text of Redis 7.
Leaves to the caller: names that answer with a fixed value, globs, the reply's form, and acting on the fields that
    `change_redis_settings` says have changed.
Reference: Redis `config.c`; texts and forms taken from the answers of a redis-server 7.0.15.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from kvservice.config import SETTINGS, Config
from kvservice.config_rows import SECRET_CHARACTERS_MAX
from kvservice.config_values import format_switch, parse_integer, parse_size, parse_switch

# Redis has four levels, we have four others; a level of theirs sets ours, and ours prints as the nearest of theirs.
_LEVELS_OF_REDIS: Final[Mapping[str, str]] = {
    "debug": "debug", "verbose": "info", "notice": "info", "warning": "warning"
}  # fmt: skip
_LEVELS_PRINTED: Final[Mapping[object, str]] = {
    "debug": "debug", "info": "notice", "warning": "warning", "error": "warning"
}  # fmt: skip
_FSYNC_PRINTED: Final[Mapping[object, str]] = {"always": "always", "interval": "everysec", "os": "no"}


class ConfigSetError(Exception):
    """CONFIG SET was refused and changed nothing; `str` of it is the text of Redis without the ERR in front."""


class RedisSetting(NamedTuple):
    """One row of the table: a name of Redis, our field, and how the value is printed."""

    name: str
    field: str
    write: Callable[[Config], str]

    @property
    def mutable(self) -> bool:
        """Whether CONFIG SET may change it."""
        return SETTINGS[self.field].mutable and self.name not in _READ_ONLY_NAMES


# One bound of ours stands for three classes of clients there, which CONFIG SET could not express.
_READ_ONLY_NAMES: Final = frozenset({"client-output-buffer-limit"})


def _plain(name: str, field: str = "") -> RedisSetting:
    field = field or name.replace("-", "_")
    return RedisSetting(name, field, lambda config: str(getattr(config, field)))


def _write_output_limit(config: Config) -> str:
    hard = config.output_buffer_bytes_max
    return " ".join(f"{clients} {hard} 0 0" for clients in ("normal", "slave", "pubsub"))


_ROWS: Final = (
    _plain("databases"),
    _plain("enable-debug-command"),
    _plain("lfu-decay-time"),
    _plain("lfu-log-factor"),
    _plain("latency-monitor-threshold"),
    _plain("maxclients"),
    _plain("maxmemory"),
    _plain("maxmemory-policy"),
    _plain("maxmemory-samples"),
    _plain("requirepass"),
    _plain("shutdown-timeout", "shutdown_timeout_seconds"),
    _plain("slowlog-log-slower-than"),
    _plain("slowlog-max-len"),
    _plain("tcp-keepalive"),
    _plain("timeout"),
    _plain("proto-max-bulk-len", "value_bytes_max"),
    _plain("client-query-buffer-limit", "query_buffer_bytes_max"),
    RedisSetting("client-output-buffer-limit", "output_buffer_bytes_max", _write_output_limit),
    RedisSetting("latency-tracking", "latency_tracking", lambda config: format_switch(config.latency_tracking)),
    RedisSetting("protected-mode", "protected_mode", lambda config: format_switch(config.protected_mode)),
    RedisSetting("loglevel", "log_level", lambda config: _LEVELS_PRINTED[config.log_level]),
    RedisSetting("appendfsync", "fsync", lambda config: _FSYNC_PRINTED[config.fsync]),
    RedisSetting("dir", "data_dir", lambda config: str(Path.cwd() / config.data_dir)),
    RedisSetting("bind", "resp_addr", lambda config: config.resp_addr.host),
    RedisSetting("port", "resp_addr", lambda config: str(config.resp_addr.port)),
)
NO_NAMES: Final[Mapping[str, str]] = {}
REDIS_SETTINGS: Final[Mapping[str, RedisSetting]] = {row.name: row for row in _ROWS}
MUTABLE_REDIS_NAMES: Final = frozenset(row.name for row in _ROWS if row.mutable)


def redis_settings(config: Config) -> dict[str, str]:
    """Return every name of Redis that stands for a setting of ours, with its value as Redis prints it."""
    return {row.name: row.write(config) for row in _ROWS}


def change_redis_settings(
    config: Config, pairs: Sequence[tuple[str, str]], kept: Mapping[str, str] = NO_NAMES
) -> frozenset[str]:
    """Do CONFIG SET with names and values as the client sent them; return the fields whose value is another now.

    Raises ConfigSetError and changes nothing when a name is unknown, stands twice, cannot change while the node runs,
    or its value is refused. ``kept`` has names that may only be given the value they have, with what is said otherwise.
    """
    rows: list[tuple[RedisSetting, str]] = []
    for name, value in pairs:
        row = REDIS_SETTINGS.get(name.lower())
        if row is None:
            raise ConfigSetError(f"Unknown option or number of arguments for CONFIG SET - '{name}'")
        if not row.mutable:
            raise _refusal(row.name, "can't set immutable config")
        if any(row is other for other, _ in rows):
            raise _refusal(row.name, "duplicate parameter")
        rows.append((row, value))
    changes = {row.field: _read(row, value) for row, value in rows}
    for row, _value in rows:
        if row.name in kept and changes[row.field] != getattr(config, row.field):
            raise _refusal(row.name, kept[row.name])
    before = {field: getattr(config, field) for field in changes}
    try:
        config.change(changes)
    except ValidationError as refused:
        # Every value was lawful alone: what is left is that they do not fit together.
        reason = str(refused.errors()[0].get("ctx", {}).get("error", refused.errors()[0]["msg"]))
        raise _refusal(rows[0][0].name, reason) from refused
    return frozenset(field for field, old in before.items() if getattr(config, field) != old)


def _refusal(name: str, reason: str) -> ConfigSetError:
    return ConfigSetError(f"CONFIG SET failed (possibly related to argument '{name}') - {reason}")


def _read(row: RedisSetting, text: str) -> object:
    """Read one value, or raise what Redis says of such a value."""
    setting = SETTINGS[row.field]
    if setting.field == "log_level":
        if text.lower() not in _LEVELS_OF_REDIS:
            raise _refusal(row.name, "argument(s) must be one of the following: " + ", ".join(_LEVELS_OF_REDIS))
        return _LEVELS_OF_REDIS[text.lower()]
    if setting.kind == "choice":
        if text.lower() not in setting.choices:
            raise _refusal(row.name, "argument(s) must be one of the following: " + ", ".join(setting.choices))
        return text.lower()
    if setting.kind == "switch":
        if text.lower() not in ("yes", "no"):
            raise _refusal(row.name, "argument must be 'yes' or 'no'")
        return parse_switch(text)
    if setting.kind in ("size", "whole"):
        return _read_number(row, text)
    if setting.secret and len(text) > SECRET_CHARACTERS_MAX:
        raise _refusal(row.name, f"argument must be {setting.allowed}")
    return text


def _read_number(row: RedisSetting, text: str) -> int:
    setting = SETTINGS[row.field]
    try:
        number = parse_size(text) if setting.kind == "size" else parse_integer(text)
    except ValueError as error:
        what = (
            "argument must be a memory value"
            if setting.kind == "size"
            else "argument couldn't be parsed into an integer"
        )
        raise _refusal(row.name, what) from error
    least, most = setting.least or 0, 2**63 - 1 if setting.most is None else setting.most
    if not least <= number <= most:
        raise _refusal(row.name, f"argument must be between {least} and {most} inclusive")
    return number
