"""The write-ahead log with its threads: appends go in from the event loop, what is durable is reported back.

Guarantees:
- `append` never waits. A dedicated thread takes all queued appends, makes one frame of them, writes and syncs it with
  one system call, and reports the token of the last one: reporting a token reports all earlier ones.
- fsync `always`: reported means durable. `interval`: reported means written, durable after the interval at most. `os`:
  reported means written, durable when the system pleases, when a segment is full and after `close`.
- After the first failed call `on_failed` is called once, nothing is reported any more, and `append` raises.
- The newest record of each kind other than entries outlives `purge`: it is repeated at the head of each segment.
Leaves to the caller: bounding what it has in flight (the queue here is as long as the caller lets it grow), handing the
callbacks to its event loop (they run in the threads of the log), replaying before the first append, and rejecting a log
that does not reach back to its snapshot. Replaced entries: see `persistence.log_reading`.

States: opened → started → closed, or → failed → closed. Opened but not started, `write_queued` does in the caller's
thread what the writer thread would do: that is how a simulation drives the same code.

Threads: `wal-writer` as said; `wal-next` fills the coming segment with zeros, lets full ones leave the page cache and
removes old ones. The writer waits for it only when three quarters of a segment fill up in less time than zeros for the
next one take (16 MiB: 0.02 s here, on idle cores).

Measured (2 virtual cores, ext4, records of 1 KiB, one at a time, uvloop): from append to the callback in the event loop
230 us at the median, where a bare pwrite + fdatasync takes 145 us. 4.5 us of the difference are Python; the rest is
waking two threads on idle cores. One call with RWF_DSYNC takes as long as pwrite + fdatasync, but has the interpreter
lock to wait for once instead of twice when the event loop is busy.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic

from persistence.disk import Disk
from persistence.errors import Damaged, DiskFailed, StorageError
from persistence.log_reading import SegmentFinding, read_log, read_segments, segments_from, verify_log
from persistence.log_writer import (
    Append,
    FsyncMode,
    LogWriter,
    WalOptions,
    WalReport,
    WalStats,
)
from persistence.record import WalRecord
from persistence.segment_preparer import SegmentPreparer

__all__ = [
    "Damaged",
    "FsyncMode",
    "SegmentFinding",
    "Wal",
    "WalOptions",
    "WalRecord",
    "WalReport",
    "WalStats",
    "read_log",
    "verify_log",
]

OnDurable = Callable[[int], object]
OnFailed = Callable[[DiskFailed], object]


class Wal:
    """The write-ahead log of one node."""

    def __init__(self, writer: LogWriter, disk: Disk, salt: bytes) -> None:
        self.directory = writer.directory
        self.stats = writer.stats
        self._writer = writer
        self._disk = disk
        self._salt = salt
        self._options = writer.options
        self._queue: SimpleQueue[Append | None] = SimpleQueue()
        self._refusal: StorageError | ValueError | None = None
        self._failure: DiskFailed | None = None
        self._failure_lock = Lock()
        self._on_durable: OnDurable = _ignore
        self._on_failed: OnFailed = _ignore
        self._thread: Thread | None = None
        self._preparer = SegmentPreparer(writer.directory, disk, self._fail)
        self._sync_due = 0.0
        self._closed = False

    @classmethod
    def open(
        cls, directory: Path, disk: Disk, options: WalOptions, *, salt: bytes, must_exist: bool = False
    ) -> tuple["Wal", WalReport]:
        """Recover the log in a directory or begin one; says what it found. Salt is 8 bytes that no other log has.

        must_exist: refuse when there is no segment, because entries were written before.
        Raises `Damaged`, `DataDirIncompatible`, `DiskFailed`; ValueError for options out of range.
        """
        writer, report = LogWriter.open(directory, disk, options, salt, must_exist=must_exist)
        return cls(writer, disk, salt), report

    def start(self, on_durable: OnDurable, on_failed: OnFailed) -> None:
        """Start the threads. on_durable(token) and on_failed(error) are called in them and must not block."""
        assert self._thread is None, "the log is started once"
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._writer.take_prepared = self._preparer.take
        self._preparer.start()
        self._thread = Thread(target=self._run, name="wal-writer", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[WalRecord], token: int) -> None:
        """Queue records that become durable together. Raises the `DiskFailed` that stopped the log, if one did."""
        if self._refusal is not None:
            raise self._refusal
        self._queue.put((records, token))

    def write_queued(self) -> int | None:
        """Write what is queued in this thread and return the last token, None when there was nothing.

        For a log that was not started. Raises `DiskFailed`.
        """
        assert self._thread is None, "the writer thread does this"
        batch: list[Append] = []
        for _ in range(self._queue.qsize()):
            item = self._queue.get_nowait()
            assert item is not None
            batch.append(item)
        if not batch:
            return None
        try:
            self._writer.write(batch)
        except DiskFailed as error:
            self._fail(error)
            raise
        return batch[-1][1]

    def mark_idle(self) -> None:
        """Do in this thread what the writer does when nothing was queued for a while. For a log not started."""
        assert self._thread is None, "the writer thread does this"
        self._writer.mark()

    def records(self, from_index: int = 0) -> Iterator[WalRecord]:
        """Yield what was written up to now, from somewhere before from_index on: earlier records come first.

        First come the records that the segment there carries over from earlier ones. Raises `Damaged`, `DiskFailed`.
        """
        writer = self._writer
        with writer.files_lock:
            place = writer.places.place_for(from_index)
            segments = [
                segment
                for segment in segments_from(writer.segments, from_index)
                if place is None or segment.sequence >= place.sequence
            ]
            end = writer.offset
        start = place if place is not None and place.sequence == segments[0].sequence else None
        # The first reading of the log of earlier runs learns where its frames stand, before any is written.
        places = writer.places if from_index == 0 and not writer.stats.frames else None
        frames = read_segments(self._disk, segments, salt=self._salt, end=end, start=start, places=places)
        return chain.from_iterable(records for _, _, records in frames)

    @property
    def first_index(self) -> int:
        """The first index that the log may still hold: no entry before it is kept."""
        with self._writer.files_lock:
            return self._writer.segments[0].first_index

    @property
    def last_index(self) -> int:
        """Index of the last entry written; 0 when there never was one."""
        return self._writer.last_index

    def bytes_from(self, index: int) -> int:
        """Return how many bytes were written from the segment on that holds an index: what a reader from it reads."""
        writer = self._writer
        with writer.files_lock:
            segments = segments_from(writer.segments, index)
            return sum([writer.sizes[segment.sequence] for segment in segments[:-1]]) + writer.offset

    def purge(self, before_index: int) -> None:
        """Remove segments whose entries are all before before_index, in the background once the log is started.

        The active segment always stays. Raises `DiskFailed` when not started.
        """
        if self._thread is None:
            self._writer.purge(before_index)
        else:
            self._preparer.submit(lambda: self._writer.purge(before_index))

    def close(self, *, seal: bool = True) -> None:
        """Write what is queued, sync, seal, and stop the threads. Waits for the disk. May be called again.

        seal=False leaves the log as a kill would. Raises `DiskFailed` when the log could not be sealed.
        """
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._preparer.stop()
        try:
            if self._failure is None and seal:
                if self._thread is None:
                    self.write_queued()
                self._writer.seal()
        except DiskFailed as error:
            self._fail(error)
            raise
        finally:
            self._refusal = self._refusal or ValueError("the log is closed")
            # The log is sealed or has failed already: there is nothing that an error here could still mean.
            with suppress(DiskFailed):
                self._writer.close()

    def _fail(self, error: DiskFailed) -> None:
        """Stop the log for good; the first error is the one that is reported."""
        with self._failure_lock:
            if self._failure is not None:
                return
            self._failure = self._refusal = error
            self.stats.last_error = str(error)
        self._on_failed(error)

    def _run(self) -> None:
        """Write until told to stop. Every error ends here: a writer that dies unheard would be a node that hangs."""
        try:
            self._write_until_closed()
        except DiskFailed as error:
            self._fail(error)
        except Exception as error:
            self._fail(DiskFailed("writer thread", str(self.directory), 0, f"unexpected {error!r}"))

    def _write_until_closed(self) -> None:
        queue, writer, on_durable = self._queue, self._writer, self._on_durable
        get, qsize, get_nowait = queue.get, queue.qsize, queue.get_nowait
        preparer = self._preparer
        closing = False
        while not closing:
            try:
                item = get(True, self._wait_seconds())
            except Empty:
                self._on_quiet()
                continue
            if item is None:
                break
            batch = [item]
            for _ in range(qsize()):
                item = get_nowait()
                if item is None:
                    closing = True
                    break
                batch.append(item)
            writer.write(batch)
            if self._failure is not None:
                return
            on_durable(batch[-1][1])
            if not preparer.busy and (wanted := writer.next_segment()):
                preparer.submit(writer.drop_cached)
                preparer.request(*wanted)
            if self._sync_due and monotonic() >= self._sync_due:
                self._on_quiet()

    def _wait_seconds(self) -> float | None:
        """Return how long to wait for an append before there is something else to do; None for ever."""
        options = self._options
        if options.fsync == "os" or not self._writer.wants_mark:
            return None
        if options.fsync == "always":
            return options.idle_mark_ms / 1000
        now = monotonic()
        if not self._sync_due:
            self._sync_due = now + options.fsync_interval_ms / 1000
        return max(0.0, self._sync_due - now)

    def _on_quiet(self) -> None:
        """Nothing came for a while, or the interval is over: sync, and cover the last frame by a mark."""
        self._sync_due = 0.0
        self._writer.mark()


def _ignore(_: object) -> None:
    """Stand in for the callbacks until the log is started."""
