"""The workload of bench/recovery on an LSM tree, in a process of its own that ends without closing anything.

Usage: python -m bench.lsm_store write FOLDER KEYS WRITES | read FOLDER. Prints JSON. RocksDB from the package
rocksdict (bench/on_demand), with its write-ahead log on and not synced, as the node of the same measurement.
"""

from __future__ import annotations

import json
import os
import random
import sys
from time import perf_counter

from bench.on_demand import module_on_demand
from bench.resp_client import FILL_BATCH, key_of, value_of
from bench.servers import written_bytes


def main(arguments: list[str]) -> None:
    """Write and die, or open and read."""
    rocksdict = module_on_demand("rocksdict")
    assert rocksdict is not None, "whoever starts this process has looked"
    act, folder = arguments[0], arguments[1]
    started = perf_counter()
    database = rocksdict.Rdict(folder, rocksdict.Options(raw_mode=True))
    if act == "write":
        keys = int(arguments[2])
        chance = random.Random(1)
        for start in range(0, int(arguments[3]), FILL_BATCH):
            batch = rocksdict.WriteBatch(raw_mode=True)
            for number in range(start, start + FILL_BATCH):
                batch.put(key_of(chance.randrange(keys)), value_of(number))
            database.write(batch)
        found = {"seconds": perf_counter() - started, "written": float(written_bytes(os.getpid()))}
    else:
        database.get(key_of(0))
        found = {"seconds": perf_counter() - started}
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
