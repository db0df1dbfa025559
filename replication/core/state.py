"""What one node of a group holds, by role, and what it hands to its driver.

Guarantees: the term grows; what was known of the leader of an earlier term is forgotten with it.
Leaves to the role modules: when anything here changes.
Reference: Raft thesis, figure 3.1; the volatile state of candidates and followers is what sections 3.10, 6.4 and 9.6
add.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from replication.core.messages import (
    Fetch,
    HardState,
    InstallSnapshot,
    Message,
    ReadReady,
)
from replication.core.read_index import ReadRounds
from replication.core.settings import Role, Settings

if TYPE_CHECKING:
    from replication.core.log import RaftLog
    from replication.core.membership import Configuration
    from replication.core.progress import Progress

HURRIED_ELECTIONS_MAX: Final = 10
"""How often a node asks early after its leader was lost; then its majority is lost too, and the timer will do."""
FORGOTTEN_TICKS: Final = 6
"""Who knows its leader to be gone asks after 1 to this many ticks: 10 to 60 ms."""
RETRY_TICKS_MIN: Final = 4
RETRY_TICKS: Final = 12
"""In a hurry, who was not elected asks again after 4 to 15 ticks: 40 to 150 ms, so that split votes part."""


class RaftState:
    """The attributes of a node; the role modules change them, the driver reads them."""

    __slots__ = (
        "acknowledged_leader",
        "acknowledged_round",
        "chance",
        "configuration",
        "election_elapsed",
        "election_timeout",
        "fetches",
        "handed_out",
        "heartbeat_elapsed",
        "hurried_elections",
        "is_campaign_due",
        "is_pre_vote",
        "is_quarantined",
        "is_removed",
        "is_sole_voter",
        "is_tail_replaced",
        "is_transfer",
        "leader",
        "leader_committed",
        "log",
        "lost_commit_index",
        "lost_peers",
        "lost_reads",
        "matched_index",
        "messages",
        "messages_after",
        "name",
        "peers",
        "pending_configuration_index",
        "progress",
        "reads",
        "reads_ready",
        "role",
        "settings",
        "snapshot",
        "stamp_ms",
        "term",
        "term_start_index",
        "ticks",
        "transferee",
        "vote",
        "votes",
    )

    def __init__(
        self,
        name: str,
        settings: Settings,
        hard_state: HardState,
        configuration: Configuration,
        log: RaftLog,
        chance: Callable[[int], int],
    ) -> None:
        # chance(n) returns a number from 0 to n - 1.
        self.name = name
        self.settings = settings
        self.chance = chance
        self.log = log
        self.term, self.vote, self.is_quarantined = hard_state
        self.handed_out = hard_state
        """The hard state that the driver was given last."""
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.stamp_ms = 0
        """The stamp for entries of the core's own; the driver sets it before every call."""
        self._init_election()
        self._init_following()
        self._init_leading()
        self.empty_outbox()
        self.configuration = configuration
        self.peers: tuple[str, ...] = ()
        """Every other member."""
        self.is_sole_voter = False
        self.restart_election_timer()

    def _init_election(self) -> None:
        self.election_elapsed = 0
        self.election_timeout = 0
        """In ticks, drawn anew whenever the timer restarts."""
        self.hurried_elections = 0
        """How many times this node may still ask early, because the leader is known to be gone."""
        self.is_pre_vote = False
        self.is_transfer = False
        """The candidate was asked by the leader to campaign."""
        self.is_campaign_due = False
        """The same, once a membership change is applied."""
        self.is_removed = False
        """The driver has found out that a later configuration, which never came here, does not count this node: it
        stands for no election until a leader speaks to it again."""
        self.votes: dict[str, bool] = {}

    def _init_following(self) -> None:
        self.is_tail_replaced = False
        """Entries were dropped in this term for those of its leader."""
        self.matched_index = 0
        """Up to here the log is known to be that of this term's leader."""
        self.leader_committed: int | None = None
        """The most that this term's leader has said it has committed; None before it said anything. For showing how far
        behind this node is, never for committing: the log may not be the leader's that far."""
        self.lost_commit_index: int | None = None
        """In quarantine: what has to be durable again, once the leader of this term has said that it knows."""
        self.acknowledged_leader: str | None = None
        """Whom the next Ready tells how far the log matches, and that it has this round."""
        self.acknowledged_round = 0

    def _init_leading(self) -> None:
        self.ticks = 0
        self.heartbeat_elapsed = 0
        self.progress: dict[str, Progress] = {}
        """What is known of each peer, while leading."""
        self.lost_peers: dict[str, int] = {}
        """Peers whose disk lost entries, and the entry that has to be committed without them first."""
        self.reads = ReadRounds()
        self.transferee: str | None = None
        self.term_start_index = 0
        """The leader's no-op."""
        self.pending_configuration_index = 0
        """No other membership change is proposed before this is applied."""

    def empty_outbox(self) -> None:
        """Begin the next Ready."""
        self.messages: list[tuple[str, Message]] = []
        self.messages_after: list[tuple[str, Message]] = []
        self.fetches: list[Fetch] = []
        self.snapshot: InstallSnapshot | None = None
        self.reads_ready: list[ReadReady] = []
        self.lost_reads: list[int] = []

    def send(self, peer: str, message: Message) -> None:
        """Send ``message`` with the next Ready, whatever the disk does."""
        self.messages.append((peer, message))

    def send_after(self, peer: str, message: Message) -> None:
        """Send ``message`` once everything that is so far is durable."""
        self.messages_after.append((peer, message))

    def enter_term(self, term: int, vote: str) -> None:
        """Begin ``term``: what was known of the leader of an earlier one counts no more."""
        assert term > self.term
        self.term = term
        self.vote = vote
        self.is_tail_replaced = False
        self.matched_index = 0
        self.leader_committed = None
        self.lost_commit_index = None
        self.acknowledged_leader = None
        self.acknowledged_round = 0
        self.is_campaign_due = False

    def restart_election_timer(self) -> None:
        """Wait anew, for a random time; in a hurry for a short one."""
        if self.hurried_elections:
            self.election_elapsed = 0
            self.election_timeout = min(RETRY_TICKS_MIN + self.chance(RETRY_TICKS), self.settings.election_ticks_min)
        else:
            self.wait_full_timeout()

    def wait_full_timeout(self) -> None:
        """Wait anew, hurry or not, for as long as an election of this node or of others is given."""
        settings = self.settings
        self.election_elapsed = 0
        span = settings.election_ticks_max - settings.election_ticks_min + 1
        self.election_timeout = settings.election_ticks_min + self.chance(span)
