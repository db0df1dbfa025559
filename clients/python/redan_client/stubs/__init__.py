"""Generated code of the protobuf sources; see generate.sh."""
