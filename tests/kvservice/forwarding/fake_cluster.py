"""Services of several nodes with one log between them and streams that a test moves by hand.

Guarantees: the real services, routers, forwarders and forwarded streams, and real messages as bytes; only consensus,
the event loops and the wire are stand-ins. A leader commits only while it is the newest; a newer one takes over a
prefix of what the older had not committed. No node ends a round of reads before it has applied all that is committed.
Leaves to the caller: saying when anything happens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from kvservice.commands.reply import ErrorReply
from kvservice.forwarding.forwarded import ForwardedStream
from kvservice.forwarding.waiting import Link
from redan.raft.v1 import raft_pb2
from replication.core.messages import Entry
from replication.errors import NotApplied, NotLeading, OutcomeUnknown
from tests.kvservice.fake_node import Bench, Peer

SHORT_SECONDS = 0.1
"""Timers of so long are due whenever time passes."""


class WireLink:
    """One stream from a follower to a leader; requests and responses wait on it until they are carried."""

    def __init__(self, follower: Bench, leader: Bench, name: str) -> None:
        self.follower = follower
        self.leader = leader
        self.name = name
        self.is_open = False
        self.is_closed = False
        self.requests: list[bytes] = []
        self.responses: list[bytes] = []
        self.stream = ForwardedStream(leader.service, name, lambda: None)

    def wake(self) -> None:
        """Be looked after by ``carry``."""

    def close(self) -> None:
        """End, as seen by the follower."""
        if not self.is_closed:
            self.is_closed = True
            self.stream.ended()

    def open(self) -> None:
        """Let the stream be there."""
        if not self.is_open and not self.is_closed:
            self.is_open = True
            self.follower.service.forwarder.opened(self)

    def send(self) -> None:
        """Put what the follower has to say on the wire."""
        while (request := self.follower.service.forwarder.next_request(self)) is not None:
            self.requests.append(request.SerializeToString())

    def arrive(self) -> None:
        """Let the leader have the next request."""
        if self.requests and not self.is_closed:
            self.stream.received(raft_pb2.ForwardRequest.FromString(self.requests.pop(0)))

    def answer(self) -> None:
        """Put what the leader has to say on the wire."""
        while (response := self.stream.next_response()) is not None:
            self.responses.append(response.SerializeToString())

    def come_back(self) -> None:
        """Let the follower have the next response."""
        if self.responses and not self.is_closed:
            response = raft_pb2.ForwardResponse.FromString(self.responses.pop(0))
            self.follower.service.forwarder.received(self, response)

    def carry(self) -> None:
        """Let everything arrive on both sides."""
        for _ in range(100):
            self.send()
            self.answer()
            if self.is_closed or not (self.requests or self.responses):
                return
            self.arrive()
            self.come_back()
        raise AssertionError("the stream does not come to rest")

    def cut(self) -> None:
        """Break the connection: what is under way is lost."""
        if not self.is_closed:
            self.stream.ended()
            self.follower.service.forwarder.broken(self)
            assert self.is_closed


class FakeCluster:
    """Nodes n1, n2, …"""

    def __init__(self, count: int = 3, **settings: Any) -> None:
        self.benches = {f"n{number}": Bench(**settings) for number in range(1, count + 1)}
        self.links: list[WireLink] = []
        self.log: list[Entry] = []
        """What is committed."""
        self.applied = dict.fromkeys(self.benches, 0)
        self.own: dict[str, list[tuple[Entry, object]]] = {name: [] for name in self.benches}
        """Batches of each node whose leadership is over and whose fate it does not know."""
        self.leader = ""
        self.term = 0
        for name, bench in self.benches.items():
            bench.node.reads_at_once = False
            bench.node.has_applied_all = partial(self._has_applied_all, name)
            bench.service.forwarder.dial = self._dial(name, bench)

    def _dial(self, name: str, bench: Bench) -> Callable[[str], Link]:
        def dial(leader: str) -> Link:
            self.links = [link for link in self.links if not link.is_closed]
            self.links.append(WireLink(bench, self.benches[leader], name))
            return self.links[-1]

        return dial

    def _has_applied_all(self, name: str) -> bool:
        """Tell whether a node has applied what is committed; one that was deposed knows of nothing newer."""
        return name != self.leader or self.applied[name] == len(self.log)

    def elect(self, name: str, *, surviving: int | None = None) -> None:
        """Make a node the leader; it has the first ``surviving`` uncommitted entries of the last leader, or all.

        Nobody but the new leader learns of it: see ``tell``.
        """
        old = self.leader
        self.term += 1
        self.leader = name
        if old:
            queued = list(self.benches[old].node.queued)
            self.benches[old].node.queued.clear()
            self.own[old] += queued
            self.log += [entry for entry, _batch in queued[:surviving]]
        self._displace(name)
        self.tell(name)

    def _displace(self, name: str) -> None:
        """Void what a node proposed since another was elected: nobody else has it."""
        self.own[name] += self.benches[name].node.queued
        self.benches[name].node.queued.clear()

    def tell(self, name: str) -> None:
        """Let a node learn who leads."""
        bench = self.benches[name]
        if name != self.leader:
            self._displace(name)
        bench.lead(self.leader, self.term, is_leader=name == self.leader)
        bench.refuse_reads()

    def tell_all(self) -> None:
        """Let every node learn who leads."""
        for name in self.benches:
            self.tell(name)

    def commit(self, count: int | None = None) -> None:
        """Commit the next ``count`` entries of the leader, or all; it applies them."""
        self.learn(self.leader)
        bench = self.benches[self.leader]
        for _ in range(len(bench.node.queued) if count is None else count):
            entry, batch = bench.node.queued.popleft()
            self.log.append(entry)
            self.applied[self.leader] += 1
            bench.service.runner.apply(entry, batch)

    def learn(self, name: str, count: int | None = None) -> None:
        """Let a node apply the next ``count`` committed entries, or all, and learn the fate of its own."""
        bench = self.benches[name]
        own = self.own[name]
        for entry in self.log[self.applied[name] :][:count]:
            if own and own[0][0] is not entry and entry.term > own[0][0].term:
                self.lose(name)
            batch = own.pop(0)[1] if own and own[0][0] is entry else None
            self.applied[name] += 1
            bench.service.runner.apply(entry, batch)

    def lose(self, name: str) -> None:
        """Let a node learn that its own entries which are not committed never will be."""
        bench = self.benches[name]
        while self.own[name] and self.own[name][0][0] not in self.log:
            entry, batch = self.own[name].pop(0)
            bench.service.runner.refused(batch, NotApplied(entry.index, entry.term))

    def give_up(self, name: str) -> None:
        """Let a node no longer wait for the fate of its own entries."""
        bench = self.benches[name]
        while self.own[name]:
            entry, batch = self.own[name].pop(0)
            bench.service.runner.refused(batch, OutcomeUnknown(entry.index, entry.term, "the time is over"))

    def end_rounds(self) -> None:
        """End the rounds of the leader that wait."""
        self.learn(self.leader)
        self.benches[self.leader].end_round()

    def turn(self) -> None:
        """End the turns of all event loops."""
        for bench in self.benches.values():
            bench.turn()

    def pass_time(self, seconds: float = 0.0) -> None:
        """Let timers that are due after ``seconds`` fire on every node."""
        for bench in self.benches.values():
            bench.now_s += seconds
            timers, bench.timers = bench.timers, []
            for after, act in timers:
                if after <= max(seconds, SHORT_SECONDS):
                    act()
                else:
                    bench.timers.append((after - seconds, act))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way."""
        benches = self.benches.values()
        return not any(self.own.values()) and not any(
            bench.service.forwarder.calls_pending or bench.soon or bench.node.queued or bench.node.reads
            for bench in benches
        )

    def settle(self) -> None:
        """Let everything happen that can, with a leader that all know and streams that all stand."""
        for _ in range(60):
            self.turn()
            for link in list(self.links):
                link.open()
                link.carry()
            self.turn()
            self.commit()
            for name in self.benches:
                self.learn(name)
                self.lose(name)
            self.end_rounds()
            self.pass_time()
            if self.is_at_rest:
                return


def cluster_led_by_n1(**settings: Any) -> FakeCluster:
    cluster = FakeCluster(**settings)
    cluster.elect("n1")
    cluster.tell_all()
    for link in cluster.links:
        link.open()
    return cluster


def link_from(cluster: FakeCluster, name: str) -> WireLink:
    """Return the newest link of a follower."""
    return [link for link in cluster.links if link.name == name and not link.is_closed][-1]


def error_of(peer: Peer) -> type[Exception]:
    [reply] = peer.taken()
    assert isinstance(reply, ErrorReply)
    return type(reply.cause)


def handing_over() -> NotLeading:
    """Return what a leader that hands over says to a proposal."""
    return NotLeading("n1")


def moves(cluster: FakeCluster, chance: random.Random) -> None:
    """Do one thing that can happen at any time."""
    name = chance.choice(list(cluster.benches))
    links = cluster.links
    match chance.randrange(13):
        case 0 | 1:
            cluster.benches[name].turn()
        case 2 | 3 | 4 if links:
            link = chance.choice(links)
            chance.choice([link.open, link.carry, link.send, link.arrive, link.answer, link.come_back, link.carry])()
        case 5 | 6 if cluster.benches[cluster.leader].node.queued:
            cluster.commit(1)
        case 7:
            cluster.end_rounds()
        case 8:
            cluster.learn(name, chance.randint(1, 3))
        case 9 if links and chance.random() < 0.3:
            chance.choice(links).cut()
        case 10 if chance.random() < 0.3:
            cluster.elect(name, surviving=chance.randint(0, 4))
            for other in cluster.benches:
                if chance.random() < 0.5:
                    cluster.tell(other)
        case 11:
            cluster.tell(name)
            if chance.random() < 0.1:
                cluster.give_up(name)
        case _:
            cluster.pass_time()
