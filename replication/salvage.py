"""What a damaged log still says: enough for a node to come back without breaking a promise that it made.

A node whose log is damaged begins a new one in quarantine (thesis assumes that disks keep what they acknowledged; this
one did not): it takes no part in elections until a leader has given it everything again. It must still not fall back
behind the highest term that it ever answered in, so that is looked for in every frame that is whole.

Guarantees: reads only; gives what can be read, and no error for what cannot.
Leaves to the caller: asking the peers as well, since the newest hard state may be in what is lost; moving files away.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from persistence.disk import Disk
from persistence.log_reading import surviving_records
from replication.core.messages import HardState
from replication.storage import (
    COMMIT_RECORD,
    ENTRY_RECORD,
    HARD_STATE_RECORD,
    RESTART_RECORD,
    decode_entry,
    decode_hard_state,
    decode_restart,
)


class Salvaged(NamedTuple):
    """The most that any readable record says."""

    last_index: int
    """Of the last entry of the highest term, or of a snapshot that the log went on behind."""
    last_term: int
    hard_state: HardState
    """Never of a lower term than an entry; not quarantined unless it was."""
    commit_index: int


def salvage(directory: Path, disk: Disk) -> Salvaged:
    """Read what is whole of the log in ``directory``, damaged or not. Raises DiskFailed if it cannot be listed."""
    last_term, last_index, commit_index = 0, 0, 0
    hard_state = HardState(0, "")
    for record in surviving_records(directory, disk):
        if record.kind == ENTRY_RECORD:
            last_term, last_index = max((last_term, last_index), (decode_entry(record).term, record.index))
        elif record.kind == RESTART_RECORD:
            index, term = decode_restart(record)
            last_term, last_index = max((last_term, last_index), (term, index))
            commit_index = max(commit_index, index)
        elif record.kind == COMMIT_RECORD:
            commit_index = max(commit_index, record.index)
        elif record.kind == HARD_STATE_RECORD:
            found = decode_hard_state(record)
            # Of one term the later record stands: the vote is given after the term is known.
            if found.term >= hard_state.term:
                hard_state = found
    if hard_state.term < last_term:
        hard_state = HardState(last_term, "", hard_state.quarantined)
    return Salvaged(last_index, last_term, hard_state, commit_index)
