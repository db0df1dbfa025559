"""Generated protobuf code; see proto/generate.sh."""
