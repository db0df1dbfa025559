"""Where reading of the log may start: a sparse list of frames, so that a reader skips most of what it does not want.

A follower that is far behind is sent a few MiB at a time, each read anew. Without the places, each of these reads would
go through its segment from the beginning: half a segment on average, 8 MiB, 50 ms of checksums and small steps.

Guarantees: ``place_for`` returns a place behind which every live entry from the index on stands.
Leaves to the caller: a lock around it, and noting places in the order of the log.
Bound: a place every STEP_BYTES of log, about 100 bytes of memory each: 800 KiB for a log of 1 GiB.
"""

from typing import NamedTuple

STEP_BYTES = 128 * 1024
"""An eighth of what a follower is sent at a time: what a read skips is little next to what it yields."""


class FramePlace(NamedTuple):
    """The start of a frame: its segment, its offset in bytes, and the checksum that it has to continue.

    last_index: of the last entry before it, at the time when it was written.
    """

    sequence: int
    offset: int
    crc: int
    last_index: int


class FrameIndex:
    """Places in the order of the log."""

    def __init__(self) -> None:
        self._places: list[FramePlace] = []
        self._next: tuple[int, int] = (0, STEP_BYTES)
        """(sequence, offset) from which on the next place is worth noting."""

    def wants(self, sequence: int, offset: int) -> bool:
        """Tell whether a place here is worth noting: it is far from the one before and from the segment's start."""
        noted_sequence, next_offset = self._next
        return offset >= (next_offset if sequence == noted_sequence else STEP_BYTES)

    def note(self, place: FramePlace) -> None:
        """Remember a place; it is behind all that were noted."""
        self._places.append(place)
        self._next = place.sequence, place.offset + STEP_BYTES

    def place_for(self, index: int) -> FramePlace | None:
        """Return the last place behind which every live entry from ``index`` on stands; None if there is none.

        When a place was written, the log ended at its ``last_index``: whatever is before it with a higher index had
        been replaced by then.
        """
        for place in reversed(self._places):
            if place.last_index < index:
                return place
        return None

    def forget_before(self, sequence: int) -> None:
        """Drop the places in segments before this one: they are removed."""
        self._places = [place for place in self._places if place.sequence >= sequence]
