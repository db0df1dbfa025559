"""The node's log: what happened, by name, with its fields, as text on a terminal and JSON elsewhere.

Guarantees: an event's name is a constant of `Event`; every line carries time, level, event, node and component. A line
    below the level costs one comparison, and the level can change while the node runs. Neither values nor secrets
    appear: bytes are shown as their length, fields named like a secret are hidden, a field is cut at a bound. What
    libraries log through the standard module comes out in the same form. A full or closed stderr stops nothing.
Leaves to the caller: choosing the level of an event (error = an operator must act; warning = may have to; info = a
    change of state that happens seldom; debug = the rest), and never logging once per command above debug.
"""

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TextIO

import structlog

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FIELD_CHARACTERS_MAX: Final = 2000  # a traceback of usual depth; a longer field is cut, so that lines stay bounded
_HEAD: Final = ("timestamp", "level", "event", "node", "component")
_SECRET_WORDS: Final = ("password", "requirepass", "secret", "token", "auth")


class Event(StrEnum):
    """Names of everything that is logged; a name never changes its meaning, alerts match on it."""

    NODE_STARTING = "node_starting"
    NODE_READY = "node_ready"
    NODE_STOPPED = "node_stopped"
    LISTENING = "listening"
    LISTEN_FAILED = "listen_failed"
    SETTINGS_CHANGED = "settings_changed"

    DATA_DIRECTORY_OPENED = "data_directory_opened"
    DATA_DIRECTORY_REFUSED = "data_directory_refused"
    LOG_TAIL_CUT = "log_tail_cut"
    LOG_SEALED = "log_sealed"
    DISK_FAILED = "disk_failed"
    DAMAGE_FOUND = "damage_found"
    REPLAY_STARTED = "replay_started"
    REPLAY_PROGRESS = "replay_progress"
    REPLAY_FINISHED = "replay_finished"
    SNAPSHOT_LOADED = "snapshot_loaded"
    SNAPSHOT_STARTED = "snapshot_started"
    SNAPSHOT_FINISHED = "snapshot_finished"
    SNAPSHOT_FAILED = "snapshot_failed"
    KEYSPACE_RELOADED = "keyspace_reloaded"
    KEYSPACE_NOT_RELOADED = "keyspace_not_reloaded"

    CLUSTER_AWAITED = "cluster_awaited"
    CLUSTER_ENTERED = "cluster_entered"
    CLUSTER_REFUSED = "cluster_refused"
    REMOVED_FROM_CLUSTER = "removed_from_cluster"
    QUARANTINE_BEGUN = "quarantine_begun"
    QUARANTINE_ENDED = "quarantine_ended"
    DAMAGE_SET_ASIDE = "damage_set_aside"
    LEADER_CHANGED = "leader_changed"
    LEADERSHIP_HANDED_OVER = "leadership_handed_over"
    MEMBERS_CHANGED = "members_changed"
    PEER_CONNECTED = "peer_connected"
    PEER_LOST = "peer_lost"
    PEER_UNREACHABLE = "peer_unreachable"
    SNAPSHOT_SENT = "snapshot_sent"
    SNAPSHOT_NOT_SENT = "snapshot_not_sent"
    PEER_REFUSED = "peer_refused"
    LEASE_NOT_HONOURED = "lease_not_honoured"
    SNAPSHOT_RECEIVED = "snapshot_received"
    TICKS_LATE = "ticks_late"
    STATE_DIVERGED = "state_diverged"
    STATE_AGREES_AGAIN = "state_agrees_again"

    CLOCK_STEPPED = "clock_stepped"

    CLIENTS_LIMITED = "clients_limited"
    AUTHENTICATION_FAILED = "authentication_failed"
    CRASH_POINT_ARMED = "crash_point_armed"

    DRAIN_STARTED = "drain_started"
    DRAIN_TIMED_OUT = "drain_timed_out"
    COMMAND_DEFECT = "command_defect"
    DEFECT_FOUND = "defect_found"
    EVENT_LOOP_STALLED = "event_loop_stalled"
    LIBRARY_MESSAGE = "library_message"


class Log:
    """What one component logs with; cheap to make, meant to be kept."""

    __slots__ = ("_component",)

    def __init__(self, component: str) -> None:
        self._component = component

    def debug(self, event: Event, **fields: object) -> None:
        """Log what only somebody who hunts a defect wants to see."""
        if _state.threshold <= logging.DEBUG:
            _state.emit("debug", self._component, event, fields)

    def info(self, event: Event, **fields: object) -> None:
        """Log a change of state."""
        if _state.threshold <= logging.INFO:
            _state.emit("info", self._component, event, fields)

    def warning(self, event: Event, **fields: object) -> None:
        """Log what may need an operator."""
        if _state.threshold <= logging.WARNING:
            _state.emit("warning", self._component, event, fields)

    def error(self, event: Event, **fields: object) -> None:
        """Log what needs an operator; pass `exc_info=error` for the traceback."""
        _state.emit("error", self._component, event, fields)


def configure(*, node: str, level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the log to a stream (stderr by default) in a form: auto, text or json; level by its name.

    Also takes over the standard `logging`, so that libraries do not write in forms of their own.
    """
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if as_text
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [_guard_fields]
    if not as_text:
        processors.append(structlog.processors.format_exc_info)
    _state.node = node
    _state.stream = stream
    _state.logger = structlog.wrap_logger(
        structlog.PrintLogger(stream), processors=[*processors, render], wrapper_class=structlog.BoundLogger
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    set_level(level)


def set_level(level: str) -> None:
    """Change the least level that is logged, at once and for libraries too; raise KeyError for an unknown name."""
    _state.threshold = LEVELS[level]
    # Libraries say at info what we say ourselves (uvicorn's "started", grpc's channels), so theirs starts one higher.
    logging.getLogger().setLevel(logging.DEBUG if level == "debug" else max(LEVELS[level], logging.WARNING))


class _LogState:
    """Where lines go; one for the process, because the standard `logging` is one for the process."""

    def __init__(self) -> None:
        self.threshold = logging.WARNING
        self.node = ""
        self.stream: TextIO = sys.stderr
        self.logger: Any = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr), processors=[_guard_fields, structlog.processors.JSONRenderer()]
        )

    def emit(self, level: str, component: str, event: str, fields: dict[str, object]) -> None:
        """Write one line; a stream that takes nothing is no reason to fail."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"timestamp": time, "level": level, "node": self.node, "component": component}
        try:
            getattr(self.logger, level)(str(event), **{**fields, **head})  # head is not to be replaced
            self.stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            return


def _guard_fields(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep values and secrets out, lines bounded, and what every line has in front."""
    fields = {**{name: fields[name] for name in _HEAD if name in fields}, **fields}
    for name, field in fields.items():
        if name == "exc_info":
            continue
        if any(word in name for word in _SECRET_WORDS) and name != "event":
            fields[name] = "[hidden]"
        elif isinstance(field, (bytes, bytearray, memoryview)):
            fields[name] = f"<{len(field)} bytes>"
        elif isinstance(field, bool) or field is None or isinstance(field, (int, float)):
            continue
        else:
            text = str(field)
            fields[name] = text if len(text) <= FIELD_CHARACTERS_MAX else text[:FIELD_CHARACTERS_MAX] + "…"
    return fields


class _LibraryHandler(logging.Handler):
    """Passes what libraries log to our form."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in reversed(LEVELS.items()) if record.levelno >= number), "debug")
        fields: dict[str, object] = {"message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        _state.emit(level, record.name, Event.LIBRARY_MESSAGE, fields)


_state: Final = _LogState()
