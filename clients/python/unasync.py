"""Write redan_client/sync.py, the client that waits, from redan_client/aio.py, the one that is awaited.

Usage: unasync.py [--check]. The two differ by a few words, and a defect that is repaired in one is repaired in both.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent / "redan_client"
HEADING: Final = "# Generated from aio.py by unasync.py. DO NOT EDIT!\n"
WORDS: Final = (
    ("import asyncio\n", ""),
    ("import grpc.aio\n", ""),
    ("from time import monotonic\n", "from time import monotonic, sleep\n"),
    ("The client for asyncio.", "The client for programs without an event loop; threads may share one."),
    ("; made without a connection, inside of a running event loop", "; made without a connection"),
    (" Whoever cancels a call may have\nit applied nevertheless.", ""),
    ("            for entry in entries:\n                yield entry\n", "            yield from entries\n"),
    ("grpc.aio.", "grpc."),
    ("asyncio.sleep", "sleep"),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("async ", ""),
    ("await ", ""),
    ("AsyncClient", "Client"),
    ("AsyncPipeline", "Pipeline"),
    ("AsyncIterator", "Iterator"),
)


def main() -> None:
    """Write the file, or tell whether it is what would be written."""
    text = (PACKAGE / "aio.py").read_text(encoding="utf-8")
    for awaited, waiting in WORDS:
        assert awaited in text, f"aio.py has no {awaited!r} any more"
        text = text.replace(awaited, waiting)
    target = PACKAGE / "sync.py"
    if sys.argv[1:] == ["--check"]:
        if target.read_text(encoding="utf-8") != HEADING + text:
            raise SystemExit("clients/python/redan_client/sync.py is not what clients/python/unasync.py makes")
    else:
        target.write_text(HEADING + text, encoding="utf-8")


if __name__ == "__main__":
    main()
