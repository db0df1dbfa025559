#!/usr/bin/env bash
# Generate the Python code of the protobuf sources: messages (_pb2.py) with types (_pb2.pyi), stubs (_pb2_grpc.py) with
# types (_pb2_grpc.pyi, by grpc_types.py beside this script: grpcio-tools makes none).
#
#   proto/generate.sh           write the files beside their sources
#   proto/generate.sh --check   succeed if the files there are, byte for byte, what would be written
#
# The generator is the grpcio-tools of requirements-dev.lock; generated code refuses to run on a grpcio or protobuf older
# than its generator. PYTHON names another interpreter that has it.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
if [ -x "$here/../.venv/bin/python" ]; then python=$here/../.venv/bin/python; fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$here"
mapfile -t sources < <(find redan -name '*.proto' | sort)
"$python" -m grpc_tools.protoc --proto_path=. --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
  --descriptor_set_out="$out/descriptors.bin" "${sources[@]}"
"$python" grpc_types.py "$out/descriptors.bin" "$out"
rm "$out/descriptors.bin"
# protoc leaves the parameters of Mapping open, which mypy --strict refuses.
find "$out" -name '*_pb2.pyi' -exec sed -i '1i # mypy: disable-error-code="type-arg"' {} +

generated() { (cd "$1" && find redan -name '*_pb2*.py' -o -name '*_pb2*.pyi' | sort); }
case ${1:-} in
  "")
    generated "$here" | (cd "$here" && xargs -r rm --)
    cp -R "$out/redan/." "$here/redan/"
    ;;
  --check)
    stale=0
    while read -r file; do
      cmp -s "$out/$file" "$here/$file" || { echo "proto/$file is not what proto/generate.sh makes" >&2; stale=1; }
    done < <({ generated "$out"; generated "$here"; } | sort -u)
    exit $stale
    ;;
  *)
    echo "usage: proto/generate.sh [--check]" >&2
    exit 2
    ;;
esac
