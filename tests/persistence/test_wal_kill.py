"""A process that writes the log is killed at any moment: what it was told is durable is there, and nothing half."""

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from persistence.disk import RealDisk
from persistence.wal import Wal, verify_log
from tests.persistence.logs import SALT, SMALL, entry

WRITER = """
import os, sys, threading
from pathlib import Path
from persistence.disk import RealDisk
from persistence.wal import Wal, WalOptions
from tests.persistence.logs import SALT, entry

fsync, first = sys.argv[2], int(sys.argv[3])
wal, _ = Wal.open(Path(sys.argv[1]), RealDisk(), WalOptions(fsync=fsync, segment_bytes=64 * 1024), salt=SALT)
room = threading.Semaphore(16)
done = first - 1

def on_durable(token):
    global done
    os.write(1, b"%d\\n" % token)
    room.release(token - done)
    done = token

wal.start(on_durable, lambda error: os._exit(9))
for index in range(first, first + 100_000):
    room.acquire()
    wal.append([entry(index, 200), entry(index, 300)], index)
"""


@pytest.mark.parametrize("fsync", ["always", "interval", "os"])
def test_a_killed_writer_leaves_every_reported_batch_and_no_half_one(fsync: str, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    random = Random(fsync)
    last = 0
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "wal"), fsync, str(last + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as writer:
            assert writer.stdout is not None
            for _ in range(random.randint(1, 600)):
                assert writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            reported = [int(line) for line in writer.stdout.read().split(b"\n")[:-1] if line]
        wal, report = Wal.open(tmp_path / "wal", RealDisk(), SMALL, salt=SALT, must_exist=True)
        records = list(wal.records())
        wal.close(seal=False)
        assert report.last_index >= max(reported, default=last + 1)
        assert records == [entry(index, size) for index in range(1, report.last_index + 1) for size in (200, 300)]
        assert report.last_index > last
        last = report.last_index
    assert report.segments > 2
    assert all(finding.damage is None for finding in verify_log(tmp_path / "wal", RealDisk()))
