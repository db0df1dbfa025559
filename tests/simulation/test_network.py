"""The simulated network."""

from __future__ import annotations

from random import Random
from typing import Any

from kvservice.simulation.clock import VirtualClock
from kvservice.simulation.network import Network, Weather


class Process:
    """Notes what arrives."""

    def __init__(self, incarnation: int = 1) -> None:
        self.incarnation = incarnation
        self.arrived: list[tuple[str, int, Any]] = []
        self.lost: list[str] = []

    def deliver(self, sender: str, incarnation: int, messages: list[Any]) -> None:
        self.arrived += [(sender, incarnation, message) for message in messages]

    def connection_lost(self, peer: str) -> None:
        self.lost.append(peer)


def two(weather: Weather | None = None) -> tuple[VirtualClock, Network, Process, Process]:
    clock = VirtualClock()
    network = Network(clock, Random(1), weather or Weather())
    one, other = Process(), Process()
    network.attach("a", one)
    network.attach("b", other)
    return clock, network, one, other


def send_many(clock: VirtualClock, network: Network, count: int = 200) -> None:
    for number in range(count):
        network.send("a", "b", 1, [number])
        clock.run_until(clock.now_us + 100)
    clock.run_until(clock.now_us + 1_000_000)


def numbers(process: Process) -> list[int]:
    return [message for _, _, message in process.arrived]


def test_messages_arrive_once_and_in_order() -> None:
    clock, network, _, other = two()
    send_many(clock, network)
    assert numbers(other) == list(range(200))


def test_bad_weather_loses_repeats_and_reorders() -> None:
    clock, network, _, other = two(Weather(loss=0.2, repeat=0.2, reorder=0.3))
    send_many(clock, network)
    arrived = numbers(other)
    assert len(set(arrived)) < 200
    assert len(arrived) > len(set(arrived))
    assert arrived != sorted(arrived)


def test_a_cut_is_for_one_direction() -> None:
    clock, network, one, other = two()
    network.cut("a", "b")
    network.send("a", "b", 1, ["x"])
    network.send("b", "a", 1, ["y"])
    clock.run_until(1_000_000)
    assert numbers(other) == []
    assert one.arrived == [("b", 1, "y")]
    network.heal()
    network.send("a", "b", 1, ["z"])
    clock.run_until(2_000_000)
    assert other.arrived == [("a", 1, "z")]


def test_what_is_under_way_when_a_connection_breaks_is_lost_and_both_ends_learn_of_it() -> None:
    clock, network, one, other = two()
    network.send("a", "b", 1, ["x"])
    network.break_connection("a", "b")
    clock.run_until(1_000_000)
    assert other.arrived == []
    assert (one.lost, other.lost) == (["b"], ["a"])
    network.send("a", "b", 1, ["y"])
    clock.run_until(2_000_000)
    assert other.arrived == [("a", 1, "y")]


def test_a_killed_process_resets_its_connections_and_a_dead_machine_does_not() -> None:
    for resets in (True, False):
        clock, network, one, _ = two()
        network.detach("b", resets=resets)
        clock.run_until(1_000_000)
        assert one.lost == (["b"] if resets else [])


def test_nothing_reaches_a_later_incarnation() -> None:
    clock, network, _, _ = two()
    network.send("a", "b", 1, ["x"])
    network.detach("b", resets=True)
    later = Process(incarnation=2)
    network.attach("b", later)
    clock.run_until(1_000_000)
    assert later.arrived == []
    network.send("a", "b", 1, ["y"])
    clock.run_until(2_000_000)
    assert later.arrived == [("a", 1, "y")]


def test_a_slow_link_takes_longer() -> None:
    clock, network, _, other = two()
    network.slow("a", "b", 100)
    network.send("a", "b", 1, ["x"])
    clock.run_until(15_000)
    assert other.arrived == []
    clock.run_until(60_000)
    assert other.arrived == [("a", 1, "x")]


def test_a_transfer_takes_as_long_as_its_bytes_do_or_fails() -> None:
    _, network, _, _ = two()
    short, long = network.transfer_us("a", "b", 1000), network.transfer_us("a", "b", 10_000_000)
    assert short is not None
    assert long is not None
    assert short < 2_000 < 100_000 <= long
    network.cut("a", "b")
    assert network.transfer_us("a", "b", 1000) is None
