#!/usr/bin/env bash
# Generate kvv1 and clusterv1 from ../../proto: protoc of grpcio-tools, protoc-gen-go and protoc-gen-go-grpc of the versions
# below, which are installed into ../../build/clients/bin.
#
#   clients/go/generate.sh           write the files
#   clients/go/generate.sh --check   succeed if the files there are, byte for byte, what would be written
#
# PYTHON names another interpreter that has grpcio-tools, GO another go.
set -euo pipefail
export LC_ALL=C
protoc_gen_go=1.36.6
protoc_gen_go_grpc=1.5.1
module=github.com/redan-kv/redan/clients/go

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi
go=${GO:-go}
tools=$root/build/clients/bin/go-$protoc_gen_go-$protoc_gen_go_grpc
if [ ! -x "$tools/protoc-gen-go" ] || [ ! -x "$tools/protoc-gen-go-grpc" ]; then
  mkdir -p "$tools"
  (
    cd "$tools" # in no module: the versions are those that stand here
    GOFLAGS=-mod=mod GOBIN=$tools "$go" install "google.golang.org/protobuf/cmd/protoc-gen-go@v$protoc_gen_go"
    GOFLAGS=-mod=mod GOBIN=$tools "$go" install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$protoc_gen_go_grpc"
  )
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$root/proto"
options=()
for kind in go go-grpc; do
  options+=("--${kind}_out=$out" "--${kind}_opt=module=$module")
  for area in kv cluster; do options+=("--${kind}_opt=Mredan/$area/v1/$area.proto=$module/${area}v1"); done
done
PATH="$tools:$PATH" "$python" -m grpc_tools.protoc --proto_path=. "${options[@]}" \
  redan/kv/v1/kv.proto redan/cluster/v1/cluster.proto
# Which protoc it was says nothing of what is generated.
sed -i '/^\/\/ \(- \)\?\tprotoc  *v/d; /^\/\/ - protoc  *v/d' "$out"/*/*.go

case ${1:-} in
  "") for area in kvv1 clusterv1; do mkdir -p "$here/$area" && cp "$out/$area"/* "$here/$area/"; done ;;
  --check)
    diff -r --brief "$out/kvv1" "$here/kvv1" >&2 && diff -r --brief "$out/clusterv1" "$here/clusterv1" >&2 || {
      echo "clients/go: the stubs are not what clients/go/generate.sh makes" >&2
      exit 1
    }
    ;;
  *)
    echo "usage: generate.sh [--check]" >&2
    exit 2
    ;;
esac
