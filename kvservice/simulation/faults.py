"""What goes wrong in a simulated cluster, as a table: one row a kind of fault, one function each.

A run enables some of the rows (swarm testing: a run in which everything fails all the time never gets far enough for
the rare defects), and lets one of them happen at random moments.

The atlas: faults that take bytes which were durable are placed so that fewer than half of the voters have lost
anything at a time. Then it is decidable that nothing acknowledged may be lost.

Guarantees: each fault ends by itself, or when the world heals.
Leaves to the caller: when.
Reference: TigerBeetle's VOPR and its ClusterFaultAtlas; swarm testing (Groce et al. 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvservice.simulation.disk import EIO, SECTOR_BYTES
from kvservice.simulation.host import Host
from kvservice.simulation.network import Weather
from persistence.errors import StorageError
from persistence.log_reading import read_log
from replication.core.membership import ADD_LEARNER, DEMOTE, PROMOTE, REMOVE, Change
from replication.crash_points import CRASH_POINTS

if TYPE_CHECKING:
    from kvservice.simulation.world import World

SECOND_US: Final = 1_000_000
VOTERS_MAX: Final = 5
STORM: Final = Weather(latency_us=2_000, spread_us=60_000, loss=0.05, repeat=0.05, reorder=0.2)


def _length_us(world: World) -> int:
    """Return how long a fault lasts: mostly short against an election, sometimes long."""
    return world.random.randrange(20_000, world.random.choice((200_000, 2 * SECOND_US, 10 * SECOND_US)))


def _running(world: World) -> Host | None:
    hosts = [host for host in world.members() if host.is_running and not host.is_paused]
    if not hosts:
        return None
    leader = world.leader()
    # The leader is where most can go wrong.
    return leader if leader is not None and world.random.random() < 0.4 else world.random.choice(hosts)


def kill(world: World) -> bool:
    """End a process; its machine goes on."""
    host = _running(world)
    if host is not None:
        host.kill()
    return host is not None


def lose_power(world: World) -> bool:
    """Cut the power of a machine, perhaps in the middle of a write."""
    host = _running(world)
    if host is not None:
        host.lose_power()
    return host is not None


def lose_power_everywhere(world: World) -> bool:
    """Cut the power of all machines at one moment."""
    for host in world.members():
        host.lose_power()
    return True


def kill_at_crash_point(world: World) -> bool:
    """Have a process killed when it gets to a named point of the driver."""
    host = _running(world)
    if host is None:
        return False
    host.crash_point = world.random.choice(list(CRASH_POINTS)), 1 + world.random.randrange(20)
    return True


def pause(world: World) -> bool:
    """Stop a process for a while, as SIGSTOP or a long garbage collection does."""
    host = _running(world)
    if host is None:
        return False
    host.pause()
    world.clock.after(_length_us(world), host.resume)
    return True


def partition(world: World) -> bool:
    """Cut links: one node off, two halves, one direction only, or each link by chance."""
    names = [host.name for host in world.members()]
    if len(names) < 2:
        return False
    world.random.shuffle(names)
    leader = world.leader()
    if leader is not None and leader.name in names and world.random.random() < 0.5:
        names.remove(leader.name)
        names.insert(0, leader.name)
    form = world.random.randrange(4)
    if form == 0:
        pairs = [(names[0], other) for other in names[1:]]
    elif form == 1:
        half = world.random.randrange(1, len(names))
        pairs = [(one, other) for one in names[:half] for other in names[half:]]
    else:
        pairs = [pair for pair in combinations(names, 2) if world.random.random() < 0.5]
    both_ways = form != 2
    length_us = _length_us(world)
    for one, other in pairs:
        for sender, receiver in ((one, other), (other, one)) if both_ways else ((one, other),):
            world.network.cut(sender, receiver)
            world.clock.after(length_us, _heal_link, world, sender, receiver, world.network.heals)
    return True


def _heal_link(world: World, sender: str, receiver: str, heals: int) -> None:
    # Not one that was cut anew, around a majority that has healed.
    if world.network.heals == heals:
        world.network.connection(sender, receiver).cut = False


def break_connections(world: World) -> bool:
    """Reset connections, each by chance."""
    for one, other in combinations([host.name for host in world.members()], 2):
        if world.random.random() < 0.4:
            world.network.break_connection(one, other)
    return True


def slow_link(world: World) -> bool:
    """Make a link slow, up to about the time of an election."""
    names = [host.name for host in world.members()]
    if len(names) < 2:
        return False
    one, other = world.random.sample(names, 2)
    leader = world.leader()
    if leader is not None and leader.name not in (one, other) and leader.name in names and world.random.random() < 0.5:
        other = leader.name
    world.network.slow(one, other, world.random.choice((20, 200, 1500)))
    world.clock.after(_length_us(world), world.network.slow, one, other, 1)
    return True


def storm(world: World) -> bool:
    """Let the network lose, repeat, delay and reorder for a while."""
    world.network.weather = STORM
    world.clock.after(_length_us(world), world.clear_up)
    return True


def slow_disk(world: World) -> bool:
    """Make a disk slow, up to seconds a write."""
    host = world.random.choice(world.members())
    host.disk_factor = world.random.choice((20, 200, 2000))
    world.clock.after(_length_us(world), _mend_disk, host)
    return True


def full_disk(world: World) -> bool:
    """Let a disk be full for a while."""
    host = world.random.choice(world.members())
    host.disk.is_full = True
    world.clock.after(_length_us(world), _mend_disk, host)
    return True


def failing_call(world: World) -> bool:
    """Let a call of a disk fail."""
    host = world.random.choice(world.members())
    calls = ("pwrite", "sync", "create", "rename", "fsync_dir", "unlink")
    host.disk.fail(world.random.choice(calls), 1 + world.random.randrange(5), EIO)
    return True


def _mend_disk(host: Host) -> None:
    host.disk_factor = 1
    host.disk.is_full = False


def step_clock(world: World) -> bool:
    """Set a clock, forward or back, by up to an hour."""
    host = world.random.choice(world.members())
    span_ms = world.random.choice((500, 20_000, 3_600_000))
    host.offset_ms += world.random.randrange(-span_ms, span_ms)
    return True


def take_snapshots(world: World) -> bool:
    """Have a node take a snapshot, after which it drops its log behind the one before."""
    host = _running(world)
    if host is None or host.process is None or not host.process.is_up:
        return False
    host.enter(host.process, host.process.snapshot_files.take)
    return True


def transfer(world: World) -> bool:
    """Have the leader hand over to another voter."""
    leader = world.leader()
    if leader is None or leader.process is None:
        return False
    others = [name for name in world.configuration.voters if name != leader.name]
    if not others:
        return False
    world.transfer(leader, world.random.choice(others))
    return True


# ---- what takes durable bytes


def rot(world: World) -> bool:
    """Change bytes of the log or of a snapshot, after the process has ended."""
    host = _spoilt(world)
    if host is None:
        return False
    limits = _rotten_places(host, _frames(host))
    if not limits:
        return False
    path, end = world.random.choice(limits)
    start = world.random.randrange(end)
    count = world.random.choice((1, 8, 512))
    content = bytes(world.random.randrange(256) for _ in range(min(count, end - start)))
    return _put(world, host, "rots", path, start, content)


def lose_write(world: World) -> bool:
    """Have the disk not have written what it said it had: the sectors of a frame are as they were before."""
    host = _spoilt(world)
    written = _written(world, host, _frames(host)) if host is not None else None
    if host is None or written is None:
        return False
    path, start, content = written
    return _put(world, host, "loses a write", path, start, bytes(len(content)))


def misdirect_write(world: World) -> bool:
    """Have the disk have written the sectors of a frame to another place, of this or of another file."""
    host = _spoilt(world)
    frames = _frames(host) if host is not None else []
    written = _written(world, host, frames) if host is not None else None
    if host is None or written is None:
        return False
    path, start, content = written
    # The whole of the first sector was written, with the ends of frames before.
    first = start - start % SECTOR_BYTES
    sectors = host.disk.content(path)[first : start + len(content)]
    places = [
        (other, offset)
        for other, end in _rotten_places(host, frames)
        for offset in range(0, end - len(sectors) + 1, SECTOR_BYTES)
        if other != path or abs(offset - first) >= len(sectors)
    ]
    if not places:
        return False
    other, offset = world.random.choice(places)
    is_lost = _put(world, host, "loses a write", path, start, bytes(len(content)))
    return _put(world, host, "has it written instead", other, offset, sectors) or is_lost


def _spoilt(world: World) -> Host | None:
    """Return a voter whose disk may lose bytes, with its process ended."""
    host = world.may_lose_bytes()
    if host is not None and host.is_running:
        host.kill()
    return host


def _put(world: World, host: Host, what: str, path: Path, start: int, content: bytes) -> bool:
    """Have other bytes on the platter; False if they are the same."""
    if content == host.disk.content(path)[start : start + len(content)]:
        return False
    host.disk.rot(path, start, content)
    host.is_damaged = host.has_rotted = True
    world.trace("%s %s: %s, %d bytes at %d", host.name, what, path.name, len(content), start)
    return True


def _frames(host: Host) -> list[tuple[Path, int]]:
    """Return where the frames of the log begin; nothing if it cannot be read."""
    try:
        return list(dict.fromkeys((path, offset) for path, offset, _ in read_log(host.directory / "wal", host.disk)))
    except StorageError:
        return []


def _written(world: World, host: Host, frames: list[tuple[Path, int]]) -> tuple[Path, int, bytes] | None:
    """Return what one write of the log put down that no later write has put down again: file, offset, bytes.

    Not the last: what no later frame tells of cannot be told from what was never written.
    """
    spans = [
        (path, offset, following - following % SECTOR_BYTES)
        for (path, offset), (next_path, following) in pairwise(frames)
        if path == next_path and following - following % SECTOR_BYTES > offset
    ]
    if not spans:
        return None
    path, start, end = world.random.choice(spans)
    return path, start, host.disk.content(path)[start:end]


def _rotten_places(host: Host, frames: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """Return files with how much of each may rot; nothing if the log has no frame.

    Damage to the very last frame cannot be told from a tear as long as no later frame says that it was durable.
    """
    places = {path: len(host.disk.content(path)) for path in host.disk.paths() if path.suffix == ".snap"}
    for path, offset in frames[:-1]:
        places[path] = max(places.get(path, 0), offset)
    return [(path, end) for path, end in sorted(places.items()) if end > 0] if frames else []


def wipe(world: World) -> bool:
    """Put an empty disk in the place of the old one."""
    host = world.may_lose_bytes()
    if host is None:
        return False
    host.lose_power()
    host.wipe()
    return True


# ---- members


def change_members(world: World) -> bool:
    """Add a learner, promote one, remove or demote a voter, or replace one by another in a single joint change."""
    leader = world.leader()
    if leader is None or not world.may_change_members():
        return False
    configuration = world.configuration
    choices: list[list[Change]] = []
    if configuration.learners:
        learner = world.random.choice(configuration.learners)
        choices.append([Change(PROMOTE, learner)])
        choices.append([Change(REMOVE, learner)])
        choices.append([Change(PROMOTE, learner), Change(REMOVE, world.random.choice(configuration.voters))])
    if len(configuration.members) < VOTERS_MAX:
        choices.append([Change(ADD_LEARNER, world.new_member(), "host:1")])
    if len(configuration.voters) > 3:
        choices.append([Change(REMOVE, world.random.choice(configuration.voters))])
        choices.append([Change(DEMOTE, world.random.choice(configuration.voters))])
        choices.append([Change(REMOVE, leader.name)])
    if not choices:
        return False
    world.change(leader, world.random.choice(choices))
    return True


Fault = Callable[["World"], bool]

FAULTS: Final[dict[str, Fault]] = {
    "kill": kill,
    "kill at a point": kill_at_crash_point,
    "power cut": lose_power,
    "power cut everywhere": lose_power_everywhere,
    "pause": pause,
    "partition": partition,
    "reset": break_connections,
    "slow link": slow_link,
    "storm": storm,
    "slow disk": slow_disk,
    "full disk": full_disk,
    "disk error": failing_call,
    "clock step": step_clock,
    "snapshot": take_snapshots,
    "transfer": transfer,
    "rot": rot,
    "lost write": lose_write,
    "misdirected write": misdirect_write,
    "wipe": wipe,
    "members": change_members,
}
