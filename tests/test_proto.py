"""The protobuf sources: clean by the linter's rules, and the committed code is what the generator makes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from redan.cluster.v1 import cluster_pb2
from redan.kv.v1 import kv_pb2
from redan.raft.v1 import raft_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
BIN = Path(sys.executable).parent
BUF = shutil.which("buf") or shutil.which("buf", path=str(BIN))
needs_buf = pytest.mark.skipif(BUF is None, reason="buf is not installed")


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a program that must succeed; return what it printed."""
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_committed_code_is_what_the_generator_makes() -> None:
    run(str(PROTO / "generate.sh"), "--check")


def test_the_check_notices_stale_missing_and_superfluous_code(tmp_path: Path) -> None:
    copy = tmp_path / "proto"
    shutil.copytree(PROTO, copy)
    environment = {**os.environ, "PYTHON": sys.executable}

    def check() -> subprocess.CompletedProcess[str]:
        command = [str(copy / "generate.sh"), "--check"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    stubs = copy / "redan" / "kv" / "v1"
    with (stubs / "kv_pb2.pyi").open("a") as file:
        file.write("# edited\n")
    (stubs / "kv_pb2_grpc.py").unlink()
    (stubs / "old_pb2.py").write_text("")
    stale = check()
    assert stale.returncode == 1
    for name in ("kv_pb2.pyi", "kv_pb2_grpc.py", "old_pb2.py"):
        assert f"proto/redan/kv/v1/{name} is not what" in stale.stderr


@needs_buf
def test_sources_pass_the_linter() -> None:
    run(str(BUF), "lint", str(PROTO))


@needs_buf
def test_sources_are_formatted() -> None:
    assert run(str(BUF), "format", "--diff", "--exit-code", str(PROTO)) == ""


def test_every_response_carries_a_header() -> None:
    for method in kv_pb2.DESCRIPTOR.services_by_name["KVService"].methods:
        header = method.output_type.fields_by_name["header"]
        assert header.number == 1, method.name
        assert header.message_type is kv_pb2.ResponseHeader.DESCRIPTOR


def test_every_write_may_carry_a_request_id() -> None:
    service = kv_pb2.DESCRIPTOR.services_by_name["KVService"]
    for name in ("Set", "Delete", "Expire", "Increment", "MultiSet", "Execute"):
        assert service.methods_by_name[name].input_type.fields_by_name["request_id"].number == 15, name
    assert "request_id" in kv_pb2.Command.DESCRIPTOR.fields_by_name


def test_every_request_of_data_names_its_database() -> None:
    for method in kv_pb2.DESCRIPTOR.services_by_name["KVService"].methods:
        assert "database" in method.input_type.fields_by_name, method.name


def test_messages_between_nodes_name_their_group_and_term() -> None:
    assert {"group", "term"} <= set(raft_pb2.Message.DESCRIPTOR.fields_by_name)
    assert set(cluster_pb2.Role.keys()) >= {"ROLE_LEADER", "ROLE_FOLLOWER", "ROLE_CANDIDATE", "ROLE_LEARNER"}
