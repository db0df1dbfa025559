"""The thread that keeps slow work on files away from the writer: zeros for the coming segment, and all about old ones.

Guarantees: at most one segment is prepared at a time; `take` returns the one that was requested, or raises the error
that its preparation met. An error of any job stops the thread and is reported once.
Leaves to the caller: calling `request` and `take` from one thread only.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

from persistence.disk import Disk
from persistence.errors import DiskFailed
from persistence.log_writer import PreparedSegment, prepare_segment


class SegmentPreparer:
    """Background jobs of one log. busy: a segment was requested and not taken yet."""

    def __init__(self, directory: Path, disk: Disk, on_failed: Callable[[DiskFailed], object]) -> None:
        self.busy = False
        self._directory = directory
        self._disk = disk
        self._on_failed = on_failed
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ready = Event()
        self._prepared: PreparedSegment | None = None
        self._failure: DiskFailed | None = None
        self._thread = Thread(target=self._run, name="wal-next", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job after those submitted before."""
        self._jobs.put(job)

    def request(self, sequence: int, capacity: int) -> None:
        """Prepare a segment in the background; capacity in bytes."""
        assert not self.busy, "one segment at a time"
        self.busy = True
        self._ready.clear()
        if self._failure is not None:
            # The thread is gone and nobody else would end the wait of `take`.
            self._ready.set()
        self.submit(lambda: self._prepare(sequence, capacity))

    def take(self, sequence: int, capacity: int) -> PreparedSegment:
        """Return the requested segment, waiting for it, or prepare one here when none was requested."""
        if not self.busy:
            return prepare_segment(self._directory, self._disk, sequence, capacity)
        # The job sets the event also when it fails, and the thread outlives the writer that waits here.
        self._ready.wait()
        prepared, self._prepared = self._prepared, None
        self.busy = False
        if prepared is None:
            assert self._failure is not None, "a preparation ends with a segment or with an error"
            raise self._failure
        return prepared

    def stop(self) -> None:
        """Finish the jobs submitted so far, stop the thread and remove a segment that nobody took."""
        self._jobs.put(None)
        self._thread.join()
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            # Recovery removes it as well, so an error here costs nothing.
            with suppress(DiskFailed):
                self._disk.close(prepared.handle)
                self._disk.unlink(prepared.path)

    def _prepare(self, sequence: int, capacity: int) -> None:
        self._prepared = prepare_segment(self._directory, self._disk, sequence, capacity)
        self._ready.set()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                failure = (
                    error
                    if isinstance(error, DiskFailed)
                    else DiskFailed("background job", str(self._directory), 0, f"unexpected {error!r}")
                )
                self._failure = failure
                self._on_failed(failure)
                break
        # Also after an error: the writer may wait for a segment that will not come.
        if self._failure is not None:
            self._ready.set()
