"""The storage layer: a write-ahead log, snapshots and the data directory. It knows bytes only; import its modules."""
