"""What is repeated, when and for how long: decisions only, so that both clients make the same ones.

Guarantees: a call is repeated only if nothing was done, or if doing it twice is the same as once: a read, or a write
with a request id, which the cluster runs once however often it comes. A call ends within its time limit, with the last
error that it met; once an attempt had an unknown outcome, no later refusal makes it "not applied". The pause before an
attempt is random, up to a bound that doubles and has a limit.
Leaves to the caller: clock, chance, sleeping.
Reference: google.aip.dev/194 (retries); Exponential Backoff And Jitter, AWS Architecture Blog, 2015 (full jitter).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redan_client.errors import NotAppliedError, OutcomeUnknownError, RedanError

LASTING: Final = frozenset(("OUT_OF_MEMORY", "REPLY_NOT_KEPT"))
"""What does not pass by itself; the second says that the write was done, and that its long reply is gone."""
LOST_CALL: Final = frozenset(("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN"))
"""How a call ends, without details, when the node or the way to it breaks."""
NODE_AT_FAULT: Final = frozenset(("NO_LEADER", "LOADING", "SHUTTING_DOWN", "SESSION_ENDED", "NOT_LEADER"))
"""Reasons for which another node is asked next."""
FIRST_ANSWER: Final = frozenset(("WRONG_TYPE", "KEY_EXISTS"))
"""What only the command itself answers, when it runs. The cluster remembers it for the request id: so the first attempt
came to the same. Any other refusal may precede the look at the request id, and tells nothing of the first attempt."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how often."""

    timeout: float = 10.0
    """Seconds for a call, with all of its attempts."""
    attempt_timeout: float = 3.0
    """Seconds for one attempt: a node that hangs is left after that, and after a third of it when asked who leads."""
    first_pause: float = 0.02
    """Seconds, at most, before the second attempt; an election takes some tenths."""
    longest_pause: float = 0.5
    """Seconds, at most, before any attempt."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, and has to be greater than 0 seconds")


def may_pass(error: RedanError) -> bool:
    """Tell whether the same request may fare better a little later."""
    if isinstance(error, NotAppliedError):
        return error.reason not in LASTING
    if isinstance(error, OutcomeUnknownError):
        return error.reason not in LASTING if error.reason else error.code in LOST_CALL
    return False


def is_safe(error: RedanError, *, runs_once: bool) -> bool:
    """Tell whether a request that failed may be repeated; ``runs_once`` says that twice is the same as once."""
    return may_pass(error) and (runs_once or isinstance(error, NotAppliedError))


def after_unknown(unknown: OutcomeUnknownError | None, error: RedanError) -> RedanError:
    """Return what to tell of a request that failed, after an attempt of unknown outcome, None if there was none."""
    if unknown is None or isinstance(error, OutcomeUnknownError) or error.reason in FIRST_ANSWER:
        return error
    text = f"{unknown}; it was repeated, and failed: {error.reason or error.code}: {error}"
    return OutcomeUnknownError(text, code=unknown.code, reason=unknown.reason, metadata=unknown.metadata)


def is_node_at_fault(error: RedanError) -> bool:
    """Tell whether another node should be asked next."""
    return error.reason in NODE_AT_FAULT or (not error.reason and error.code in LOST_CALL)


class Attempts:
    """The attempts of one call."""

    def __init__(self, settings: Settings, now: float, chance: Callable[[], float]) -> None:
        self._settings = settings
        self._ends = now + settings.timeout
        self._chance = chance
        """Returns a number in 0..1."""
        self._failed = 0
        self._unknown: OutcomeUnknownError | None = None
        """What the last attempt of unknown outcome failed with."""

    def seconds(self, now: float) -> float:
        """Return how long the attempt that begins now may take."""
        return max(0.001, min(self._settings.attempt_timeout, self._ends - now))

    def probe_seconds(self, now: float) -> float:
        """Return how long a node that is asked now gets to say who leads."""
        return min(self._settings.attempt_timeout / 3, self.seconds(now))

    def pause_after(self, error: RedanError, now: float, *, runs_once: bool) -> float:
        """Return how many seconds to wait before the next attempt. Raise what to tell if there is none."""
        told = after_unknown(self._unknown, error)
        if isinstance(error, OutcomeUnknownError):
            self._unknown = error
        if not is_safe(error, runs_once=runs_once):
            raise told
        settings = self._settings
        # 2 ** 16 first pauses are beyond any limit.
        most = min(settings.longest_pause, settings.first_pause * (1 << min(self._failed, 16)))
        self._failed += 1
        pause = most * self._chance()
        if now + pause >= self._ends:
            raise told
        return pause
