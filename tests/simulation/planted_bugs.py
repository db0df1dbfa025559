"""Bugs that are planted to see whether the simulator finds them, as a table: each a context in which one is there.

Not here are bugs that simulations of some minutes were not seen to find, since they harm nothing by themselves, or only
where several rare things meet in one order. Tests of one module show that the code has not got them:

    a late report of the disk counts for entries that       test_core_safety.py; no promise rests on it: a promise
    have taken the place of those it is about               waits for its own report; the log writes in order
    acknowledgements of an earlier leadership count         test_thesis.py; takes two elections in a message's time
    a peer that lost its disk counts before an entry was    test_core_quarantine.py; takes a vote, a lost disk and a
    committed without it                                    leader that knows of neither, within a second
    no restart record behind a received snapshot            test_storage.py; takes a tail that nobody else has, longer
                                                            than what the snapshot is ahead by
    a node that has just started votes while a lease may    test_leased_node.py; takes a leader cut off from one voter,
    be left                                                 and then from another that starts again within 341 ms
    calls run in another term than they were sent in        test_refusals.py; each is sent once all the same

Guarantees: they patch classes of the shipped code while a context is open, and are part of the tests only: nothing in
the program can switch one on.
Leaves to the caller: running simulations (`catch`), and what counts as quick enough.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from statistics import median
from time import process_time
from types import ModuleType
from typing import Final, NamedTuple

from kvservice.simulation.report import Failure, simulate
from kvservice.simulation.world import ANY, Conditions
from tests.simulation import planted_around_core, planted_in_elections, planted_in_replication

Plant = Callable[[], AbstractContextManager[None]]


def _plants(module: ModuleType) -> dict[str, Plant]:
    return {
        name.replace("_", " "): plant
        for name, plant in vars(module).items()
        if not name.startswith("_") and hasattr(plant, "__wrapped__") and plant.__module__ == module.__name__
    }


PLANTED_BUGS: Final[dict[str, Plant]] = (
    _plants(planted_in_elections) | _plants(planted_in_replication) | _plants(planted_around_core)
)


RESTLESS: Final = Conditions(3, ("partition", "kill", "transfer", "pause", "storm", "power cut"), 400_000, 60_000)
"""Leaders change all the time, under many writes."""
CROWD: Final = RESTLESS._replace(nodes=5)
CUT_OFF: Final = Conditions(3, ("partition", "pause", "reset", "slow link"), 700_000, 20_000)
"""Leaders that do not know yet that they lead no more, under many reads."""
LEASED: Final = CUT_OFF._replace(faults=("partition", "slow link"), lease=True, readers=6)
"""Leaders that serve reads by the clock, while others may be elected."""
DELAYED: Final = Conditions(3, ("storm", "slow link", "partition"), 400_000, 20_000, check_quorum=False)
"""Leaders that are answered late, when others lead already."""
FALLING: Final = Conditions(3, ("kill", "slow disk", "slow link"), 400_000, 20_000)
"""Leaders that end just after they have acknowledged something."""
COMING_AND_GOING: Final = Conditions(5, ("members", "transfer", "partition"), 400_000, 200_000)
BEHIND: Final = Conditions(3, ("snapshot", "partition", "kill", "slow link", "pause"), 400_000, 100_000)
"""Followers that need snapshots."""
WORN: Final = Conditions(3, ("wipe", "rot", "partition", "kill", "transfer"), 700_000, 200_000)
"""Disks that lose what they had."""
FORGETFUL: Final = Conditions(
    5, ("power cut", "power cut everywhere", "kill at a point", "slow disk"), 400_000, 200_000
)

WHERE: Final[dict[str, Conditions]] = {
    "leader counts what its disk has not": FORGETFUL,
    "commits older terms by counting": CROWD,
    "counts learners": COMING_AND_GOING,
    "counts a removed leader": COMING_AND_GOING,
    "half commits": RESTLESS._replace(nodes=4),
    "half elects": RESTLESS._replace(nodes=4),
    "joint counts as one set": COMING_AND_GOING,
    "votes twice": CROWD,
    "votes before durable": FORGETFUL,
    "asks before own vote is durable": FORGETFUL,
    "votes for shorter logs": RESTLESS,
    "pre votes count as votes": CROWD,
    "ignores quarantine": WORN,
    "does not match logs": CROWD,
    "truncates on any append": RESTLESS,
    "keeps a stale tail": RESTLESS,
    "commits what the leader did not send": RESTLESS,
    "heartbeats commit what is not matched": RESTLESS,
    "remembers the match of another term": CROWD,
    "reads without a round": CUT_OFF._replace(check_quorum=False),
    "reads by answers to an earlier round": DELAYED,
    "reads before the no op is committed": FALLING,
    "reads ahead before all is applied": FALLING._replace(readers=3),
    "lease longer than an election": LEASED,
    "lease that no clock ends": LEASED._replace(faults=("pause", "slow link", "partition")),
    "forgets a leader that has a lease": LEASED._replace(faults=("reset",)),
    "lease that others do not honour": LEASED._replace(faults=("partition", "slow link", "transfer"), patient=("n2",)),
    "lease outlives a hand over": LEASED._replace(faults=("transfer", "slow link")),
    "begins without a no op": FALLING,
    "skips fsync": FORGETFUL,
    "does not persist the vote": FORGETFUL,
    "does not persist the term": FORGETFUL,
    "drops the kind of entries": FORGETFUL,
    "cuts damage like a tear": WORN,
    "does not make the found tail durable": Conditions(3, ("disk error", "power cut", "kill"), 400_000, 200_000),
    "snapshots have no members": COMING_AND_GOING._replace(faults=("members", "snapshot", "kill")),
    "takes a late snapshot over newer state": WORN,
    "renames snapshots before they are durable": FORGETFUL._replace(faults=("snapshot", "power cut")),
    "expires by the local clock": Conditions(3, ("clock step", "kill"), 700_000, 200_000),
    "forgets entries while it loads a snapshot": BEHIND._replace(nodes=5, pause_us=30_000),
    "replays an entry twice": FORGETFUL,
    "applied index apart from the state": BEHIND,
    "snapshots are not of one moment": BEHIND,
    "snapshots leave out deadlines": BEHIND,
    "followers read their own state": CUT_OFF,
    "forwards twice": FALLING,
    "answers callers out of order": FALLING,
    "concludes too early that nothing was applied": CUT_OFF._replace(nodes=5, fault_mean_us=400_000),
    "lets later calls overtake": RESTLESS,
    "says ok to writes it lost": CUT_OFF._replace(nodes=5, fault_mean_us=400_000),
    "repeats writes of unknown outcome": CUT_OFF._replace(nodes=5, fault_mean_us=400_000),
}
"""Where a bug shows soon. Any run may show it, but not within the time that a test has."""


FIRST_SEED: Final = {
    "lease that others do not honour": 5,
    "reads by answers to an earlier round": 13,
    "reads before the no op is committed": 7,
    "remembers the match of another term": 430,
    "repeats writes of unknown outcome": 25,
    "takes a late snapshot over newer state": 630,
}
"""Where the search for a rare one begins: time saved as long as what the seed means stays the same, and no more."""
ONLY_WHERE: Final = frozenset(name for name, conditions in WHERE.items() if conditions.lease) | {
    "reads ahead before all is applied",
    "reads by answers to an earlier round",
}
"""Bugs in what one run in ten or twelve has, leases or leaders without check-quorum: they are looked for under their
own conditions only. Under any, reads ahead took 686 runs, and the last was not seen in 1,500."""
WIDE_RUNS: Final = 1000
"""Reads without a round take some 300 of them."""
WIDE_SECONDS: Final = 120.0


class Catch(NamedTuple):
    """How a planted bug was found; or not: failure is None."""

    name: str
    runs: int
    seed: int
    virtual_seconds: float
    processor_seconds: float
    failure: Failure | None


def catch(name: str, seeds: Iterable[int], virtual_seconds: float, *, anywhere: bool = False) -> Catch:
    """Run seeds with a bug until one fails; ``anywhere``: under any conditions."""
    conditions = ANY if anywhere else WHERE.get(name, ANY)
    runs = seed = 0
    virtual = 0.0
    started = process_time()
    failure: Failure | None = None
    with PLANTED_BUGS[name]():
        for seed in seeds:
            report = simulate(seed, virtual_seconds, conditions)
            runs += 1
            virtual += report.virtual_seconds
            failure = report.failure
            if failure is not None:
                break
    return Catch(name, runs, seed, virtual, process_time() - started, failure)


def line_of(caught: Catch) -> str:
    """Return what became of a bug as one line."""
    if caught.failure is None:
        return f"{caught.name:<48} NOT FOUND in {caught.runs} runs"
    return (
        f"{caught.name:<48} run {caught.runs:>3}, {caught.virtual_seconds:>6.0f} virtual s,"
        f" {caught.processor_seconds:>6.2f} s: {caught.failure.reason.splitlines()[0][:90]}"
    )


def summary(all_caught: list[Catch]) -> str:
    """Return how many were found, and how soon, as one line."""
    found = [caught for caught in all_caught if caught.failure is not None]
    return (
        f"{len(found)} of {len(all_caught)} planted bugs found; median to find one:"
        f" {median(caught.virtual_seconds for caught in all_caught):.0f} virtual s,"
        f" {median(caught.processor_seconds for caught in all_caught):.2f} s of a processor;"
        f" {sum(caught.processor_seconds for caught in all_caught):.0f} s for all"
    )


def search_anywhere() -> int:
    """Look for each bug in runs that hardly anybody chose for it, print what was found; return how many were not."""
    all_caught: list[Catch] = []
    for name in PLANTED_BUGS:
        caught = catch(name, range(WIDE_RUNS), WIDE_SECONDS, anywhere=name not in ONLY_WHERE)
        all_caught.append(caught)
        print(line_of(caught), flush=True)
    print(summary(all_caught))
    return sum(caught.failure is None for caught in all_caught)


if __name__ == "__main__":
    sys.exit(f"{missed} were not found" if (missed := search_anywhere()) else 0)
