"""The process's limit of open files, against the number of clients that are to be let in.

Without this, clients alone could use up all files of a process (1,024 where nobody raised it), and the log, which then
cannot begin a segment, would stop the node.

Guarantees: ``RESERVED_FILES`` stay for log, snapshots, peers, gRPC and HTTP, whatever connects; the limit is only
ever raised, and only as far as the kernel lets this user.
Reference: getrlimit(2); redis/src/server.c (adjustOpenFilesLimit).
"""

from __future__ import annotations

import resource
from typing import Final

RESERVED_FILES: Final = 256


def clients_within_open_files(clients_max: int) -> int:
    """Raise the limit for so many clients; return how many the limit allows, at least 1."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients_max + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if reachable > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            soft = reachable
    return clients_max if soft == resource.RLIM_INFINITY else max(1, min(clients_max, soft - RESERVED_FILES))
