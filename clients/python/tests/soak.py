"""Writes through the client for some time and prints what was acknowledged, for tests that break nodes meanwhile.

Usage: soak.py HOST:PORT,HOST:PORT,… SECONDS [PREFIX]. The password is in REDAN_PASSWORD, if there is one.

On standard output, one line each, written before the next write begins:

    set KEY          the key PREFIX:N was stored with the value N
    incr KEY VALUE   the counter PREFIX:counter was incremented by one, and the answer was VALUE
    pipe KEY VALUE   the counter PREFIX:piped was incremented by one within a pipeline, and the answer was VALUE
    failed TEXT      a write failed for good; the program goes on
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from redan_client import Client, RedanError, Settings

PIPED = 5


def main() -> None:
    """Write until the time is over."""
    addresses, seconds, prefix = sys.argv[1], float(sys.argv[2]), (sys.argv[3:] or ["python"])[0]
    ends, number = monotonic() + seconds, 0
    settings = Settings(timeout=30.0, attempt_timeout=2.0)
    with Client(addresses, password=os.environ.get("REDAN_PASSWORD"), settings=settings) as client:
        while monotonic() < ends:
            number += 1
            key = f"{prefix}:{number}"
            try:
                client.set(key, number)
                print("set", key, flush=True)
                print("incr", f"{prefix}:counter", client.increment(f"{prefix}:counter"), flush=True)
                pipeline = client.pipeline()
                for _ in range(PIPED):
                    pipeline.increment(f"{prefix}:piped")
                for value in pipeline.execute():
                    print("pipe", f"{prefix}:piped", value, flush=True)
            except RedanError as error:
                print("failed", f"{error.code} {error.reason} {error}", flush=True)


if __name__ == "__main__":
    main()
