"""The gRPC plane: the typed API of redan.kv.v1 and redan.cluster.v1, health and reflection."""
