"""Virtual time."""

from __future__ import annotations

from kvservice.simulation.clock import VirtualClock


def test_what_is_due_happens_in_order_of_time_and_then_of_asking() -> None:
    clock = VirtualClock()
    seen: list[tuple[int, str]] = []
    for delay_us, name in ((30, "c"), (10, "a"), (30, "d"), (20, "b")):
        clock.after(delay_us, lambda name: seen.append((clock.now_us, name)), name)
    clock.run_until(29)
    assert seen == [(10, "a"), (20, "b")]
    clock.run_until(100)
    assert seen == [(10, "a"), (20, "b"), (30, "c"), (30, "d")]
    assert clock.now_us == 100


def test_what_is_asked_for_meanwhile_happens_too() -> None:
    clock = VirtualClock()
    seen: list[int] = []

    def again() -> None:
        seen.append(clock.now_us)
        clock.after(10, again)

    clock.after(5, again)
    clock.run_until(35)
    assert seen == [5, 15, 25, 35]
    assert clock.happened == 4
    assert len(clock) == 1
