"""A network that loses, delays, repeats and reorders, cuts links also one way, and breaks connections.

Model: between each ordered pair of nodes there is one connection at a time. What is sent on it arrives once, in order,
unless the weather says otherwise. A connection ends when either process ends or the network breaks it; what was under
way on it is lost, and nothing of it arrives on the next one. A process that ends resets its connections, a machine that
loses power or a link that is cut says nothing.

Guarantees: a message never reaches a later incarnation of its receiver, and is repeated within one connection only.
Leaves to the caller: what nodes do with it, and when the weather changes.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple, Protocol

from kvservice.simulation.clock import VirtualClock


class Endpoint(Protocol):
    """A running process as the network sees it."""

    incarnation: int

    def deliver(self, sender: str, incarnation: int, messages: list[Any]) -> None:
        """Take messages of one connection, in the order they arrive."""

    def connection_lost(self, peer: str) -> None:
        """Learn that the connection to a peer ended or was refused."""


class Weather(NamedTuple):
    """How the network behaves. Times in us, chances 0..1 a batch of messages."""

    latency_us: int = 200
    spread_us: int = 300
    """Latency is latency_us and up to so much more, mostly little."""
    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    bytes_per_us: int = 100


RECONNECT_US = 20_000
RECONNECT_SPREAD_US = 200_000
LATENCY_US_MAX = 5_000_000
RESEND_US = 200_000


class Connection:
    """One direction between two nodes."""

    __slots__ = ("cut", "epoch", "factor", "last_arrival_us", "opens_us", "receiver", "sender")

    def __init__(self, sender: str, receiver: str) -> None:
        self.sender = sender
        self.receiver = receiver
        self.epoch = 0
        """Grows whenever the connection ends; what is under way carries the epoch it was sent in."""
        self.opens_us = 0
        """Nothing is sent before."""
        self.last_arrival_us = 0
        self.cut = False
        self.factor = 1
        """Slow links: latency times this."""


class Network:
    """All nodes and the connections between them."""

    def __init__(self, clock: VirtualClock, random: Random, weather: Weather) -> None:
        self.weather = weather
        self.sent = 0
        self.lost = 0
        self.repeated = 0
        self.heals = 0
        """How often every link was healed: what was to end before has ended."""
        self._clock = clock
        self._random = random
        self._endpoints: dict[str, Endpoint] = {}
        self._connections: dict[tuple[str, str], Connection] = {}

    def connection(self, sender: str, receiver: str) -> Connection:
        """Return the connection of an ordered pair."""
        found = self._connections.get((sender, receiver))
        if found is None:
            found = self._connections[sender, receiver] = Connection(sender, receiver)
        return found

    # ---- processes

    def attach(self, name: str, endpoint: Endpoint) -> None:
        """Let a process that has started be reached."""
        self._endpoints[name] = endpoint
        for connection in self._of(name):
            connection.opens_us = min(connection.opens_us, self._clock.now_us) + self._random.randrange(5_000)

    def detach(self, name: str, *, resets: bool) -> None:
        """Take a process that has ended away; resets: its kernel is still there to tell the others."""
        self._endpoints.pop(name, None)
        for connection in self._of(name):
            connection.epoch += 1
        if resets:
            for peer in list(self._endpoints):
                self._tell_lost(peer, name)

    def is_attached(self, name: str) -> bool:
        """Tell whether a process of this name runs."""
        return name in self._endpoints

    def _of(self, name: str) -> list[Connection]:
        return [connection for pair, connection in self._connections.items() if name in pair]

    def _tell_lost(self, name: str, peer: str) -> None:
        """Let a process learn, after the usual time, that a peer has reset or refused a connection."""
        if not self.connection(peer, name).cut and name in self._endpoints:
            incarnation = self._endpoints[name].incarnation
            self._clock.after(self._latency(self.connection(peer, name)), self._lost_now, name, incarnation, peer)

    def _lost_now(self, name: str, incarnation: int, peer: str) -> None:
        endpoint = self._endpoints.get(name)
        if endpoint is not None and endpoint.incarnation == incarnation:
            endpoint.connection_lost(peer)

    # ---- links

    def cut(self, sender: str, receiver: str) -> None:
        """Let nothing through from one to the other; the way back stays."""
        self.connection(sender, receiver).cut = True

    def slow(self, sender: str, receiver: str, factor: int) -> None:
        """Multiply the latency from one to the other."""
        self.connection(sender, receiver).factor = factor

    def heal(self) -> None:
        """Undo every cut and every slow link; what was sent on a slow one does not hold up what follows."""
        self.heals += 1
        for connection in self._connections.values():
            connection.cut = False
            connection.factor = 1
            if connection.last_arrival_us > self._clock.now_us + LATENCY_US_MAX // 5:
                connection.epoch += 1
                connection.last_arrival_us = 0

    def break_connection(self, sender: str, receiver: str) -> None:
        """Reset a connection: what is under way is lost, both ends learn of it, and one of them connects again."""
        connection = self.connection(sender, receiver)
        connection.epoch += 1
        connection.opens_us = self._clock.now_us + RECONNECT_US + self._random.randrange(RECONNECT_SPREAD_US)
        self._tell_lost(sender, receiver)
        self._tell_lost(receiver, sender)

    # ---- messages

    def send(self, sender: str, receiver: str, incarnation: int, messages: list[Any]) -> None:
        """Send messages together; hot."""
        self.sent += len(messages)
        connection = self._connections.get((sender, receiver)) or self.connection(sender, receiver)
        clock, weather = self._clock, self.weather
        target = self._endpoints.get(receiver)
        if target is None or connection.cut or clock.now_us < connection.opens_us:
            self.lost += len(messages)
            return
        chance = self._random.random
        if weather.loss and chance() < weather.loss:
            self.lost += len(messages)
            return
        arrives_us = clock.now_us + self._latency(connection)
        if weather.reorder and chance() < weather.reorder:
            arrives_us += self._latency(connection) * 4
        elif arrives_us < connection.last_arrival_us:
            arrives_us = connection.last_arrival_us
        else:
            connection.last_arrival_us = arrives_us
        epoch, life = connection.epoch, target.incarnation
        clock.at(arrives_us, self._arrive, connection, epoch, life, incarnation, messages)
        if weather.repeat and chance() < weather.repeat:
            self.repeated += len(messages)
            again_us = arrives_us + self._latency(connection)
            clock.at(again_us, self._arrive, connection, epoch, life, incarnation, messages)

    def _arrive(self, connection: Connection, epoch: int, target: int, incarnation: int, messages: list[Any]) -> None:
        endpoint = self._endpoints.get(connection.receiver)
        if endpoint is None or connection.epoch != epoch or connection.cut or endpoint.incarnation != target:
            self.lost += len(messages)
            return
        endpoint.deliver(connection.sender, incarnation, messages)

    def transfer_us(self, sender: str, receiver: str, count: int) -> int | None:
        """Return how long so many bytes take, None when they do not arrive: no link, nobody there, bad luck."""
        connection = self.connection(sender, receiver)
        is_open = receiver in self._endpoints and self._clock.now_us >= connection.opens_us and not connection.cut
        if not is_open or self._random.random() < self.weather.loss:
            return None
        return self._latency(connection) * 2 + count * connection.factor // self.weather.bytes_per_us

    def stream_us(self, sender: str, receiver: str) -> int | None:
        """Return how long a message of a stream takes, None while it does not arrive. What is lost is sent again."""
        connection = self.connection(sender, receiver)
        if receiver not in self._endpoints or connection.cut or self._clock.now_us < connection.opens_us:
            return None
        is_lost = self.weather.loss and self._random.random() < self.weather.loss
        return self._latency(connection) + (RESEND_US if is_lost else 0)

    def _latency(self, connection: Connection) -> int:
        weather = self.weather
        chance = self._random.random()
        latency_us = (weather.latency_us + int(weather.spread_us * chance * chance * chance)) * connection.factor
        return min(LATENCY_US_MAX, latency_us)
