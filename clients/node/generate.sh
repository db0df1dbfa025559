#!/usr/bin/env bash
# Copy the protobuf sources from ../../proto (or PROTO) to proto/redan, where the package reads them, and generate their
# types into src/generated. Neither is committed: both are made anew by each build, and so cannot be stale.
set -euo pipefail
cd "$(dirname "$0")"
from=${PROTO:-../../proto}
rm -rf proto/redan src/generated
for area in kv cluster; do
  mkdir -p "proto/redan/$area/v1"
  cp "$from/redan/$area/v1/$area.proto" "proto/redan/$area/v1/"
done
node_modules/.bin/proto-loader-gen-types redan/kv/v1/kv.proto redan/cluster/v1/cluster.proto details.proto \
  --includeDirs=proto --outDir=src/generated --grpcLib=@grpc/grpc-js --importFileExtension=.js \
  --longs=String --enums=String --defaults --oneofs --includeComments
