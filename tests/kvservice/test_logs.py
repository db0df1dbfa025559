"""The log: its form, what it hides, and that it costs and breaks nothing."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from kvservice import logs
from kvservice.logs import FIELD_CHARACTERS_MAX, Event, Log, configure, set_level

log = Log("test")


class Lines(io.StringIO):
    """A stream whose lines are read back as JSON."""

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Lines()
    configure(node="n7", level="info", form="json", stream=stream)
    yield stream
    configure(node="", level="warning", form="json")
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_carries_time_level_node_component_event_and_fields(lines: Lines) -> None:
    log.info(Event.LISTENING, plane="resp", port=6379)
    (line,) = lines.objects()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "node": "n7",
        "component": "test",
        "event": "listening",
        "plane": "resp",
        "port": 6379,
    }


def test_a_level_holds_from_the_moment_it_is_set(lines: Lines) -> None:
    log.debug(Event.LISTENING)
    set_level("debug")
    log.debug(Event.NODE_READY)
    set_level("error")
    log.warning(Event.DRAIN_TIMED_OUT)
    log.error(Event.DISK_FAILED)
    assert [line["event"] for line in lines.objects()] == ["node_ready", "disk_failed"]
    with pytest.raises(KeyError):
        set_level("loud")


def test_values_and_secrets_do_not_appear(lines: Lines) -> None:
    log.info(
        Event.SETTINGS_CHANGED, requirepass="hunter2", new_password="hunter2", key=b"hunter2", view=memoryview(b"x")
    )
    assert "hunter2" not in lines.getvalue()
    (line,) = lines.objects()
    assert (line["requirepass"], line["key"], line["view"]) == ("[hidden]", "<7 bytes>", "<1 bytes>")


def test_a_field_cannot_take_the_place_of_the_head(lines: Lines) -> None:
    log.info(Event.LISTENING, node="other", level="error", component="x")
    (line,) = lines.objects()
    assert (line["node"], line["level"], line["component"]) == ("n7", "info", "test")


def test_a_long_field_is_cut(lines: Lines) -> None:
    log.info(Event.COMMAND_DEFECT, error="x" * 100_000)
    (line,) = lines.objects()
    assert len(line["error"]) == FIELD_CHARACTERS_MAX + 1


def test_a_line_is_one_line_whatever_the_fields_hold(lines: Lines) -> None:
    log.info(Event.COMMAND_DEFECT, error="a\nb\x00\ud800", items=["x", 1])
    assert len(lines.getvalue().splitlines()) == 1


def test_an_exception_brings_its_traceback(lines: Lines) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        log.error(Event.COMMAND_DEFECT, exc_info=error)
    (line,) = lines.objects()
    assert "ValueError: broken" in line["exception"]
    assert "test_logs.py" in line["exception"]


def test_libraries_are_logged_in_the_same_form(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").warning("port %d is odd", 3)
    logging.getLogger("uvicorn.error").info("started")  # ours says that already
    (line,) = lines.objects()
    assert (line["level"], line["component"]) == ("warning", "uvicorn.error")
    assert (line["event"], line["message"]) == ("library_message", "port 3 is odd")
    set_level("debug")
    logging.getLogger("grpc").debug("detail")
    assert lines.objects()[-1]["message"] == "detail"


def test_text_is_for_people(lines: Lines) -> None:
    stream = io.StringIO()
    configure(node="n1", level="info", form="text", stream=stream)
    log.info(Event.LISTENING, plane="resp", key=b"abc")
    text = stream.getvalue()
    assert "listening" in text
    assert "plane=resp" in text
    assert "<3 bytes>" in text
    assert "\x1b" not in text, "colours are for terminals"
    assert lines.getvalue() == ""


def test_auto_is_json_where_nobody_looks(lines: Lines) -> None:
    stream = Lines()
    configure(node="n1", level="info", form="auto", stream=stream)
    log.info(Event.LISTENING)
    assert stream.objects()[0]["event"] == "listening"


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_takes_nothing_stops_nothing(lines: Lines) -> None:
    for stream in (FullDisk(), io.StringIO()):
        configure(node="n1", level="info", form="json", stream=stream)
        if not isinstance(stream, FullDisk):
            stream.close()
        log.error(Event.DISK_FAILED)
    assert lines.getvalue() == ""


def test_names_of_events_are_their_constants_in_small_letters() -> None:
    assert [event for event in Event if event.value != event.name.lower()] == []
    assert logs.LEVELS.keys() == {"debug", "info", "warning", "error"}
