"""The stream between a node that does not lead and the one that does, over the simulated network.

Model: what is sent arrives once and in order, later where a link is cut meanwhile (TCP sends again); where that takes
longer than PATIENCE_US the stream breaks. It breaks as well when either process ends; the other side learns of it if
the end of a connection can be told (see `Network.detach`), else when its patience is over.

Guarantees: nothing arrives on a stream after it has ended on that side.
Leaves to the caller: what is said on it (`kvservice.forwarding`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvservice.forwarding.forwarded import ForwardedStream

if TYPE_CHECKING:
    from kvservice.simulation.process import Process

Stalled = tuple[int, Callable[[Any], None], Any]

PATIENCE_US: Final = 10_000_000
RETRY_US: Final = 200_000


class SimulatedStream:
    """A stream as the dialing node's forwarder sees it (`forwarding.waiting.Link`), and its other end."""

    def __init__(self, dialer: Process, leader: str) -> None:
        self._dialer = dialer
        self._leader = leader
        self._clock = dialer.world.clock
        self._network = dialer.world.network
        self._server: Process | None = None
        self._forwarded: ForwardedStream | None = None
        self._is_closed = False
        self._is_pumping_out = False
        self._is_pumping_back = False
        self._ends = (dialer.host.name, leader)
        self._epoch = self._network.connection(*self._ends).epoch
        self._arrivals_us = [0, 0]
        self._stalled: tuple[deque[Stalled], deque[Stalled]] = (deque(), deque())
        """Since when, what is called where it arrives, and with what: in order, each way."""
        dialer.streams.append(self)
        self._carry(0, self._open, None)

    # ---- the dialing side

    def wake(self) -> None:
        """Take requests soon, until there is none."""
        if not self._is_pumping_out:
            self._is_pumping_out = True
            self._dialer.soon(self._pump_out)

    def _pump_out(self) -> None:
        self._is_pumping_out = False
        while not self._is_closed and (request := self._dialer.state.service.forwarder.next_request(self)) is not None:
            self._carry(0, self._request_arrives, request)

    def close(self) -> None:
        """End the stream from the dialing side."""
        if not self._is_closed:
            self._is_closed = True
            self._dialer.streams.remove(self)
            if self._server is not None:
                self._carry(0, self._closed_there, None)

    def _broken(self) -> None:
        if not self._is_closed:
            self._dialer.state.service.forwarder.broken(self)

    def _response_arrives(self, response: Any) -> None:
        if not self._is_closed:
            self._dialer.state.service.forwarder.received(self, response)

    def _opened(self, _nothing: None) -> None:
        if not self._is_closed:
            self._dialer.state.service.forwarder.opened(self)

    # ---- the leader's side

    def _open(self, _nothing: None) -> None:
        server = self._dialer.world.hosts[self._leader].process
        assert server is not None
        self._server = server
        self._forwarded = ForwardedStream(server.state.service, self._dialer.host.name, self._wake_back)
        server.streams.append(self)
        self._carry(1, self._opened, None)

    def _wake_back(self) -> None:
        if not self._is_pumping_back and self._server is not None:
            self._is_pumping_back = True
            self._server.soon(self._pump_back)

    def _pump_back(self) -> None:
        self._is_pumping_back = False
        while self._forwarded is not None and (response := self._forwarded.next_response()) is not None:
            self._carry(1, self._response_arrives, response)

    def _request_arrives(self, request: Any) -> None:
        if self._forwarded is not None:
            self._forwarded.received(request)

    def _closed_there(self, _nothing: None) -> None:
        if self._forwarded is not None:
            forwarded, self._forwarded = self._forwarded, None
            forwarded.ended()
            if self._server is not None:
                self._server.streams.remove(self)

    # ---- the wire

    def party_ended(self, process: Process, *, resets: bool) -> None:
        """Learn that the process at one end has ended, and tell the other end in time."""
        patience_us = 300 if resets else PATIENCE_US
        if process is self._dialer:
            self._is_closed = True
            server = self._server
            if server is not None:
                self._clock.after(patience_us, server.host.enter, server, self._closed_there, None)
        else:
            self._forwarded = None
            self._clock.after(patience_us, self._dialer.host.enter, self._dialer, self._broken)

    def _carry(self, direction: int, arrive: Callable[[Any], None], message: Any) -> None:
        """Carry a message to the server (0) or back (1), behind those before it."""
        self._stalled[direction].append((self._clock.now_us, arrive, message))
        if len(self._stalled[direction]) == 1:
            self._flush(direction)

    def _flush(self, direction: int) -> None:
        """Send what waits, as far as the link lets it through."""
        stalled = self._stalled[direction]
        sender, receiver = self._ends if direction == 0 else self._ends[::-1]
        clock = self._clock
        while stalled:
            since_us, arrive, message = stalled[0]
            if self._network.connection(*self._ends).epoch != self._epoch:
                self._break()
                return
            delay_us = self._network.stream_us(sender, receiver)
            if delay_us is None:
                if clock.now_us - since_us >= PATIENCE_US or not self._network.is_attached(receiver):
                    self._break()
                else:
                    clock.after(RETRY_US, self._flush, direction)
                return
            stalled.popleft()
            arrives_us = max(clock.now_us + delay_us, self._arrivals_us[direction] + 1)
            self._arrivals_us[direction] = arrives_us
            clock.after(arrives_us - clock.now_us, self._arrive, direction, arrive, message)

    def _break(self) -> None:
        """Let both sides learn that the stream is gone."""
        for stalled in self._stalled:
            stalled.clear()
        self._clock.after(300, self._dialer.host.enter, self._dialer, self._broken)
        if self._server is not None:
            self._clock.after(300, self._server.host.enter, self._server, self._closed_there, None)

    def _arrive(self, direction: int, arrive: Callable[[Any], None], message: Any) -> None:
        if direction == 1:
            receiver: Process | None = self._dialer
        else:
            receiver = self._server or self._dialer.world.hosts[self._leader].process
            if receiver is None or not receiver.is_up:
                self._dialer.host.enter(self._dialer, self._broken)
                return
        assert receiver is not None
        receiver.host.enter(receiver, arrive, message)
