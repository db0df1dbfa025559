"""Whether others are there, as a node that does not lead hears them."""

from __future__ import annotations

from kvservice.cluster.hearing import SILENT_SECONDS, Hearing


class Ear:
    """What a node hears, with the streams and the clock in the test's hands."""

    def __init__(self) -> None:
        self.streams = {"n2", "n3"}
        self.now_s = 100.0
        self.hearing = Hearing(lambda peer: peer in self.streams, lambda: self.now_s)


def test_a_stream_is_enough_until_its_member_has_told_something() -> None:
    ear = Ear()
    ear.now_s += 100 * SILENT_SECONDS
    assert ear.hearing.hears("n2")
    assert ear.hearing.index_of("n2") == 0
    assert not ear.hearing.hears("n4")


def test_who_falls_silent_is_there_no_more_until_it_tells_again() -> None:
    ear = Ear()
    ear.hearing.told("n2", 7)
    ear.now_s += SILENT_SECONDS - 0.001
    assert ear.hearing.hears("n2")
    ear.now_s += 0.001
    assert not ear.hearing.hears("n2")
    assert ear.hearing.index_of("n2") == 7, "it had that when it was last heard of"
    ear.hearing.told("n2", 0)
    assert ear.hearing.hears("n2")
    assert ear.hearing.index_of("n2") == 0


def test_who_has_no_stream_is_missed_at_once() -> None:
    ear = Ear()
    ear.hearing.told("n2", 7)
    ear.streams.clear()
    assert not ear.hearing.hears("n2")
    assert ear.hearing.index_of("n2") == 7


def test_what_a_member_told_ends_with_its_next_stream() -> None:
    ear = Ear()
    ear.hearing.told("n2", 7)
    ear.now_s += SILENT_SECONDS
    ear.hearing.greeted("n2")
    assert ear.hearing.hears("n2")
    assert ear.hearing.index_of("n2") == 0


def test_former_members_are_forgotten() -> None:
    ear = Ear()
    ear.hearing.told("n2", 7)
    ear.hearing.told("n3", 8)
    ear.hearing.keep(("n1", "n3"))
    assert (ear.hearing.index_of("n2"), ear.hearing.index_of("n3")) == (0, 8)
