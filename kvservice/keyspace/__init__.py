"""The keyspace: databases, deadlines, eviction and snapshots, in one thread and without I/O."""
