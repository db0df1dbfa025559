"""What the leader knows of one peer's log, and how much it may send it.

States::

    PROBE      where the logs agree is not known: one append at a time, then wait for its answer
    REPLICATE  they agree up to ``match``: appends follow each other, up to the window
    SNAPSHOT   the entries that the peer needs are gone: nothing is sent until the snapshot has arrived or failed

    PROBE ─ acknowledged ─► REPLICATE ─ refused, or unreachable ─► PROBE
    either ─ entries gone ─► SNAPSHOT ─ sent, failed, or caught up past it ─► PROBE (or REPLICATE, when acknowledged)

Guarantees: ``match < next``; ``match`` never goes down, except when the peer itself says that it has lost what it had
acknowledged (``lost``). The window counts messages and bytes; an append is let through while neither is used up, so the
bytes in flight stay under ``inflight_bytes_max`` plus one append.
Leaves to the caller: which state to change to when, and to resume a paused peer with each heartbeat that it answers.
Reference: Raft thesis, sections 3.5 and 10.2.2 (pipelining); etcd-io/raft, package tracker.
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class ProgressState(Enum):
    """How a peer is sent to."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


PROBE = ProgressState.PROBE
REPLICATE = ProgressState.REPLICATE
SNAPSHOT = ProgressState.SNAPSHOT


class Progress:
    """The leader's view of one peer."""

    __slots__ = (
        "_inflight",
        "_inflight_bytes",
        "_inflight_bytes_max",
        "_inflight_messages_max",
        "commit_sent",
        "is_awaited",
        "is_fetching",
        "is_learner",
        "is_nudge_due",
        "lost_round",
        "lost_seen",
        "lost_until",
        "match",
        "next",
        "pending_snapshot",
        "read_round",
        "recent_active",
        "state",
        "was_active",
    )

    def __init__(
        self,
        next_index: int,
        inflight_messages_max: int,
        inflight_bytes_max: int,
        is_learner: bool = False,
        recent_active: bool = False,
    ) -> None:
        assert next_index > 0
        assert inflight_messages_max > 0
        assert inflight_bytes_max > 0
        self.match = 0
        """The last index that the peer holds durably and that is the leader's own."""
        self.next = next_index
        """The first index to send next."""
        self.state = PROBE
        self.is_learner = is_learner
        self.recent_active = recent_active
        """Something was heard of the peer since the flag was last cleared (CheckQuorum)."""
        self.was_active = False
        """The flag as it was then."""
        self.pending_snapshot = 0
        """In SNAPSHOT: the last index of the snapshot that is on its way; otherwise 0."""
        self.lost_seen = False
        """The peer has said in this term that its disk lost entries: appends tell it that this is known."""
        self.lost_round = 0
        """What tells the peer that its loss is known, and all after it, carries this round or a later one."""
        self.is_awaited = False
        """Send nothing until an answer comes: a probe is under way, or the window is full."""
        self.is_fetching = False
        """The entries to send next are being read from disk."""
        self.is_nudge_due = False
        """Nothing was acknowledged since the last heartbeat: its answer is followed by an append, to find lost ones."""
        self.commit_sent = 0
        """The commit index that the peer was told last."""
        self.read_round = 0
        """The newest round of reads that the peer has answered."""
        self.lost_until = 0
        """With ``lost_seen``: once ``match`` is here, the peer has what it lost; 0 as long as nothing was sent."""
        self._inflight: deque[tuple[int, int]] = deque()
        """Last index and bytes of each append sent and not acknowledged, in order; empty unless REPLICATE."""
        self._inflight_bytes = 0
        self._inflight_messages_max = inflight_messages_max
        self._inflight_bytes_max = inflight_bytes_max

    def __repr__(self) -> str:
        """Show what a log or a failed test wants to know."""
        flags = "".join(
            f" {word}"
            for word, is_set in (
                (f"pending-snapshot={self.pending_snapshot}", self.state is SNAPSHOT),
                ("paused", self.is_paused),
                ("inactive", not self.recent_active),
                ("learner", self.is_learner),
                ("lost-seen", self.lost_seen),
            )
            if is_set
        )
        inflight = f" inflight={len(self._inflight)}" if self._inflight else ""
        return f"{self.state.value} match={self.match} next={self.next}{inflight}{flags}"

    @property
    def is_heard(self) -> bool:
        """Whether something was heard of the peer in the last election timeout or the one before it."""
        return self.recent_active or self.was_active

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent now, not even an append without entries."""
        return self.is_awaited or self.state is SNAPSHOT

    @property
    def is_window_full(self) -> bool:
        """Whether no append with entries may be sent, resumed or not."""
        return len(self._inflight) >= self._inflight_messages_max or self._inflight_bytes >= self._inflight_bytes_max

    @property
    def inflight_messages(self) -> int:
        """How many appends wait for their acknowledgement."""
        return len(self._inflight)

    def become_probe(self) -> None:
        """Find out anew where the logs agree; after a snapshot, begin behind it."""
        next_index = self.match + 1
        if self.state is SNAPSHOT:
            next_index = max(next_index, self.pending_snapshot + 1)
        self._become(PROBE, next_index)

    def become_replicate(self) -> None:
        """Stream from ``match`` on."""
        self._become(REPLICATE, self.match + 1)

    def become_snapshot(self, last_index: int) -> None:
        """Wait for the snapshot up to ``last_index`` that was just asked for."""
        self._become(SNAPSHOT, last_index + 1)
        self.pending_snapshot = last_index

    def snapshot_failed(self) -> None:
        """Forget the snapshot that did not arrive, and probe from what the peer is known to hold."""
        assert self.state is SNAPSHOT
        self._become(PROBE, self.match + 1)

    def sent(self, last_index: int, entries_bytes: int) -> None:
        """Count an append that ends with ``last_index``.

        One without entries ends with the index before ``next``; it fills no window, but it pauses: its answer is
        awaited in PROBE, and a peer with a full window gets one such append a heartbeat.
        """
        assert self.state is not SNAPSHOT
        if self.state is PROBE:
            self.is_awaited = True
            return
        if last_index >= self.next:
            self.next = last_index + 1
            self._inflight.append((last_index, entries_bytes))
            self._inflight_bytes += entries_bytes
        if self.is_window_full:
            self.is_awaited = True

    def resume(self) -> None:
        """Let one more append through: the peer has answered a heartbeat, so it is there."""
        self.is_awaited = False

    def acknowledged(self, index: int) -> bool:
        """Learn that the peer holds everything up to ``index``; return whether ``match`` went up.

        In PROBE an answer that confirms ``match`` itself is news as well: where the logs agree is known then.
        """
        self._free_up_to(index)
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        self.is_awaited = self.is_window_full
        return True

    def refused(self, previous_index: int, hint_index: int) -> bool:
        """Learn that the peer has not the entry at ``previous_index`` and can match at ``hint_index`` at most.

        Return False if this is an old answer that says nothing new. Otherwise ``next`` was moved back; streaming was
        on a wrong assumption then, and the caller changes to PROBE.
        """
        if self.state is REPLICATE:
            if previous_index <= self.match:
                return False
            self.next = self.match + 1
            return True
        if self.state is SNAPSHOT or previous_index != self.next - 1:
            return False
        self.next = max(min(previous_index, hint_index + 1), self.match + 1)
        self.is_awaited = False
        return True

    def lost(self, hint_index: int) -> None:
        """Learn that the peer's disk lost what it had acknowledged: count nothing, probe from its last entry."""
        next_index = min(self.next, hint_index + 1)
        self.match = 0
        self.lost_seen = True
        self.lost_until = 0
        self._become(PROBE, next_index)

    def _become(self, state: ProgressState, next_index: int) -> None:
        self.state = state
        self.next = next_index
        self.pending_snapshot = 0
        self.is_awaited = False
        self.is_fetching = False
        self._inflight.clear()
        self._inflight_bytes = 0

    def _free_up_to(self, index: int) -> None:
        inflight = self._inflight
        while inflight and inflight[0][0] <= index:
            self._inflight_bytes -= inflight.popleft()[1]
