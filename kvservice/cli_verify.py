"""What `redan verify` finds in a data directory: META, every segment of the log, every snapshot, and whether they join.

Guarantees: every byte of log and snapshots is read and checked; it goes on after damage, so that one run shows its
    extent. It takes no lock and changes nothing. A torn tail is not damage: the next start cuts what was never
    acknowledged.
Leaves to the caller: printing, and the exit code.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kvservice.cluster.charter import decode as decode_charter
from persistence.data_dir import read_meta
from persistence.disk import Disk, RealDisk
from persistence.errors import Damaged, DataDirIncompatible
from persistence.log_reading import SegmentFinding, verify_log
from persistence.snapshot import SnapshotReader
from persistence.snapshot_files import list_snapshots

DAMAGED: Final = "damaged"
SOUND: Final = "sound"


class Finding(NamedTuple):
    """One line of the report. state is `damaged`, or what the file is."""

    file: str
    state: str
    detail: str


class Verification(NamedTuple):
    """The whole report."""

    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return all(finding.state != DAMAGED for finding in self.findings)


def verify_directory(directory: Path, disk: Disk | None = None) -> Verification:
    """Check a data directory; raise DiskFailed when it cannot be read."""
    disk = disk or RealDisk()
    meta, log_is_expected = _verify_meta(directory, disk)
    segments = verify_log(directory / "wal", disk)
    snapshots, newest_index = _verify_snapshots(directory / "snapshots", disk)
    findings = [meta, *map(_segment_finding, segments), *snapshots]
    if log_is_expected and not segments:
        findings.append(Finding("wal", DAMAGED, "the log was created and is missing"))
    findings += _verify_join(segments, newest_index)
    return Verification(tuple(findings))


def _verify_meta(directory: Path, disk: Disk) -> tuple[Finding, bool]:
    """Check META; also return whether there must be a log."""
    try:
        meta = read_meta(directory, disk)
    except (Damaged, DataDirIncompatible) as error:
        return Finding("META", DAMAGED, str(error)), False
    if meta is None:
        return Finding(
            "META", DAMAGED, "it is missing: no node's directory, or one whose creation was cut short"
        ), False
    detail = f"node {meta.identity.decode(errors='backslashreplace')}"
    if meta.charter:
        try:
            detail += f" of cluster {decode_charter(meta.charter).cluster_id}"
        except ValueError as error:
            return Finding("META", DAMAGED, str(error)), meta.log_created
    return Finding("META", SOUND, detail), meta.log_created


def _segment_finding(segment: SegmentFinding) -> Finding:
    detail = f"{segment.size} bytes, {segment.frames} frames, {segment.records} records"
    if segment.last_index:
        detail += f", entries {segment.first_index} to {segment.last_index}"
    if segment.state == "torn":
        detail += "; the last write was cut off and not acknowledged, the next start removes it"
    if segment.damage is not None:
        detail += f"; {segment.damage}"
    return Finding(f"wal/{segment.file.name}", segment.state, detail)


def _verify_snapshots(directory: Path, disk: Disk) -> tuple[list[Finding], int]:
    """Check every snapshot; also return the index that the newest sound one reaches, 0 without one."""
    findings: list[Finding] = []
    newest_index = 0
    for snapshot in list_snapshots(directory, disk):
        name = f"snapshots/{snapshot.path.name}"
        try:
            with SnapshotReader.open(snapshot.path, disk) as reader:
                footer = reader.verify()
        except (Damaged, DataDirIncompatible) as error:
            findings.append(Finding(name, DAMAGED, str(error)))
            continue
        newest_index = max(newest_index, snapshot.last_index)
        detail = f"{footer.item_count} items in {footer.chunk_count} chunks, up to entry {snapshot.last_index}"
        findings.append(Finding(name, SOUND, detail))
    return findings, newest_index


def _verify_join(segments: list[SegmentFinding], newest_index: int) -> Iterator[Finding]:
    """Check that the log begins no later than the entry after the newest sound snapshot."""
    begins = next((segment.first_index for segment in segments if segment.first_index), 0)
    if begins > newest_index + 1:
        behind = (
            f"the newest sound snapshot ends at entry {newest_index}" if newest_index else "no sound snapshot is there"
        )
        yield Finding("wal", DAMAGED, f"the log begins at entry {begins}, and {behind}: entries between are missing")
