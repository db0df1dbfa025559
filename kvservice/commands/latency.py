"""LATENCY: events that took too long, and histograms by command.

Histograms count from a command's arrival to its answer, the wait for the disk included; their bounds are powers of two
in microseconds.
Reference: the Redis command pages of LATENCY; texts of redis-server 7.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import mean
from typing import Final

from kvservice.commands.containers import container, server_row
from kvservice.commands.introspection import named
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import Reply, Verbatim
from kvservice.commands.table import Args, Command
from kvservice.errors import RequestError
from kvservice.latency_buckets import doublings
from kvservice.latency_monitor import LatencyEvent, LatencyMonitor
from kvservice.stats import CommandStats

GRAPH_COLUMNS: Final = 80
GRAPH_ROWS: Final = 4
GRAPH_MARKS: Final = " _o#"

HELP: Final = """
DOCTOR
    Return a report of what took too long, and what to do about it.
GRAPH <event>
    Return the samples of <event> as a drawing in text.
HISTORY <event>
    Return the samples of <event>: time in seconds, duration in milliseconds.
HISTOGRAM [<command> ...]
    Return how long commands took to be answered, as cumulated counts.
LATEST
    Return the newest and the longest sample of every event.
RESET [<event> ...]
    Remove the samples of some events, or of all.
"""

ADVICE: Final = {
    "command": "SLOWLOG GET names the commands; large values and KEYS are the usual reason.",
    "fast-command": "A fast command that is slow means that the machine is busy: look at its CPU and memory pressure.",
    "aof-fsync-always": "The disk takes long to sync the log: look for other writers on it, or choose a faster one.",
    "snapshot": "A slice of a snapshot took long: large values are encoded whole.",
    "expire-cycle": "Many keys expire at one time: spread their deadlines.",
    "eviction-cycle": "maxmemory is reached and keys give way: raise it, or store less.",
    "event-loop": "The process did not get to run in time: look at the CPU of the machine, and at SLOWLOG.",
}


def latest(call: ServerCall, _args: Args) -> Reply:
    """Answer the newest and the longest sample of every event."""
    return [
        [name.encode(), event.samples[-1].unix_s, event.samples[-1].milliseconds, event.max_ms]
        for name, event in call.service.stats.latency.events.items()
    ]


def history(call: ServerCall, args: Args) -> Reply:
    """Answer the samples of an event, oldest first; none for one that never took long."""
    event = call.service.stats.latency.events.get(_text(args[2]))
    return [] if event is None else [[sample.unix_s, sample.milliseconds] for sample in event.samples]


def reset(call: ServerCall, args: Args) -> Reply:
    """Remove the samples of some events, or of all; answer how many events had samples."""
    return call.service.stats.latency.forget([_text(name) for name in args[2:]])


def histogram(call: ServerCall, args: Args) -> Reply:
    """Answer, by command, the number of answers and their cumulated times; a container means its subcommands."""
    counted = call.service.stats.commands
    rows: Iterable[Command] = [row for row, _stats in call.service.stats.told()]
    if len(args) > 2:
        chosen = [row for name in args[2:] if (row := named(call.service.table, name)) is not None]
        rows = [leaf for row in chosen for leaf in (row, *row.subcommands.values())]
    reply: dict[Reply, Reply] = {}
    for row in rows:
        stats = counted.get(row)
        if stats is not None and any(stats.buckets):
            reply[row.name.encode()] = _distribution(stats)
    return reply


def _distribution(stats: CommandStats) -> Reply:
    steps: dict[Reply, Reply] = dict(doublings(stats.buckets))
    return {b"calls": sum(stats.buckets), b"histogram_usec": steps}


def graph(call: ServerCall, args: Args) -> Reply:
    """Answer the samples of an event as columns, the newest at the right."""
    name = _text(args[2])
    event = call.service.stats.latency.events.get(name)
    if event is None:
        raise RequestError(f"No samples available for event '{name}'")
    return Verbatim(drawing(name, event, int(time.time())).encode("utf-8", "surrogateescape"))


def drawing(name: str, event: LatencyEvent, now_s: int) -> str:
    """Return a drawing of the last samples: one column each, its height the time, its age below."""
    samples = list(event.samples)[-GRAPH_COLUMNS:]
    times = [sample.milliseconds for sample in samples]
    low, high = min(times), max(times)
    steps = GRAPH_ROWS * (len(GRAPH_MARKS) - 1)
    heights = [1 + (steps - 1) * (ms - low) // (high - low) if high > low else 1 for ms in times]
    lines = [f"{name} - high {high} ms, low {low} ms (all time high {event.max_ms} ms)", "-" * GRAPH_COLUMNS]
    for row in reversed(range(GRAPH_ROWS)):
        filled = [min(max(height - row * (len(GRAPH_MARKS) - 1), 0), len(GRAPH_MARKS) - 1) for height in heights]
        lines.append("".join(GRAPH_MARKS[level] for level in filled).rstrip())
    ages = [short_age(now_s - sample.unix_s) for sample in samples]
    lines.append("")
    lines += ["".join(age[at : at + 1] or " " for age in ages).rstrip() for at in range(max(map(len, ages)))]
    return "\n".join(lines) + "\n"


def short_age(seconds: int) -> str:
    """Return an age in its largest unit: 42s, 5m, 3h, 2d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def doctor(call: ServerCall, _args: Args) -> Reply:
    """Answer a report in words."""
    return Verbatim(report(call.service.stats.latency).encode("utf-8", "surrogateescape"))


def report(monitor: LatencyMonitor) -> str:
    """Return what took too long, with advice."""
    if not monitor.threshold_ms and not monitor.events:
        return (
            "Latency monitoring is off, so there is nothing to report. Turn it on with\n"
            '"CONFIG SET latency-monitor-threshold <milliseconds>"; 100 is a good start.\n'
        )
    if not monitor.events:
        return f"No event took {monitor.threshold_ms} ms or longer since monitoring began.\n"
    lines = ["These events took too long:", ""]
    for number, (name, event) in enumerate(monitor.events.items(), start=1):
        times = [sample.milliseconds for sample in event.samples]
        span_s = event.samples[-1].unix_s - event.samples[0].unix_s
        lines.append(
            f"{number}. {name}: {len(times)} samples in {span_s} s, mean {mean(times):.0f} ms, "
            f"longest {event.max_ms} ms."
        )
        if name in ADVICE:
            lines.append(f"   {ADVICE[name]}")
    return "\n".join(lines) + "\n"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _row(name: str, run: ServerHandler, arity: int, since: str, summary: str, complexity: str = "O(1)") -> Command:
    return server_row(
        f"latency|{name}", run, arity, "admin noscript loading stale", "", since, summary, complexity=complexity
    )


_OF_COMMANDS: Final = "O(N) where N is the number of commands that ran"

ROWS: Final = [
    container(
        "latency",
        [
            _row("doctor", doctor, 2, "2.8.13", "Reports what took too long, in words."),
            _row("graph", graph, 3, "2.8.13", "Draws the samples of an event."),
            _row("histogram", histogram, -2, "7.0.0", "Returns how long commands took.", _OF_COMMANDS),
            _row("history", history, 3, "2.8.13", "Returns the samples of an event."),
            _row("latest", latest, 2, "2.8.13", "Returns the newest sample of every event."),
            _row("reset", reset, -2, "2.8.13", "Removes samples."),
        ],
        "2.8.13",
        "Commands about latency.",
        help_lines=HELP,
    )
]
