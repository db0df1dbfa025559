"""Bytes from outside against a real node: a clear error or a closed connection, others served, memory bounded."""

from __future__ import annotations

import random
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from kvservice.gateway.open_files import RESERVED_FILES
from kvservice.gateway.resp import encode_command, encode_commands
from tests.harness.hostile import (
    FRAGMENTS,
    HTTP_POST,
    READ_BYTES,
    TIMEOUT_S,
    TLS_CLIENT_HELLO,
    answer_until_closed,
    exchange,
)
from tests.harness.process import NodeProcess

MIB = 1 << 20
PING = encode_command([b"PING"])
PONG = b"+PONG\r\n"
KEY_BYTES_MAX = 64 * 1024
VALUE_BYTES_MAX = 16 * MIB


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("hostile"), "--fsync", "os") as process:
        yield process


def received(peer: socket.socket, length: int) -> bytes:
    """Return exactly ``length`` bytes from a peer; fewer only if it closes."""
    answered = bytearray()
    while len(answered) < length and (chunk := peer.recv(min(READ_BYTES, length - len(answered)))):
        answered += chunk
    return bytes(answered)


def assert_serves(node: NodeProcess) -> None:
    """Check that a well-behaved client is served."""
    with node.connect() as peer:
        peer.sendall(encode_commands([[b"SET", b"served", b"yes"], [b"GET", b"served"]]))
        assert received(peer, 14) == b"+OK\r\n$3\r\nyes\r\n"


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as a condition holds; fail if it does not within the bound."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connected_clients(node: NodeProcess) -> int:
    """Return what INFO counts, without the connection that asks."""
    answer = exchange(node.connect, [encode_command([b"INFO", b"clients"])])
    return int(answer.split(b"connected_clients:")[1].split(b"\r\n")[0]) - 1


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"*1000000000\r\n", b"invalid multibulk length"),
        (b"*abc\r\n", b"invalid multibulk length"),
        (b"*1\r\n$2147483648\r\n", b"invalid bulk length"),
        (b"*1\r\n$%d\r\n" % (VALUE_BYTES_MAX + 1), b"invalid bulk length"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*2\r\n*1\r\n$4\r\nPING\r\n", b"expected '$', got '*'"),
        (b"*2\r\n$3\r\nGET\r\n:12\r\n", b"expected '$', got ':'"),
        (b"*2\r\n$3\r\nGET\r\n+key\r\n", b"expected '$', got '+'"),
        (b"*1\r\n\xff\r\n", b"expected '$', got '\xff'"),
        (b"*" + b"1" * 70_000, b"too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70_000, b"too big bulk count string"),
        (b"x" * 70_000, b"too big inline request"),
        (b'SET "key\r\n', b"unbalanced quotes in request"),
        (TLS_CLIENT_HELLO, b"this port does not speak TLS"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_broken_stream_is_answered_by_name_and_closed(node: NodeProcess, stream: bytes, error: bytes) -> None:
    assert answer_until_closed(node.connect, PING + stream) == PONG + b"-ERR Protocol error: " + error + b"\r\n"
    assert_serves(node)


def test_an_http_request_is_closed_without_running_its_body(node: NodeProcess) -> None:
    assert answer_until_closed(node.connect, HTTP_POST) == b""
    assert exchange(node.connect, [encode_command([b"EXISTS", b"stolen"])]) == b":0\r\n"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ([b"NOSUCH", b"a"], b"-ERR unknown command 'NOSUCH', with args beginning with: 'a' \r\n"),
        ([b"\r\n+OK"], b"-ERR unknown command '  +OK', with args beginning with: \r\n"),
        ([b""], b"-ERR unknown command '', with args beginning with: \r\n"),
        ([b"GET"], b"-ERR wrong number of arguments for 'get' command\r\n"),
        ([b"GET", b"a", b"b"], b"-ERR wrong number of arguments for 'get' command\r\n"),
        ([b"INCR", b"text"], b"-ERR value is not an integer or out of range\r\n"),
        ([b"SET", b"text", b"v", b"EX", b"0"], b"-ERR invalid expire time in 'set' command\r\n"),
        (
            [b"SET", b"k" * (KEY_BYTES_MAX + 1), b"v"],
            b"-ERR key is 65537 bytes long, allowed are 0..65536 (key-bytes-max)\r\n",
        ),
    ],
    ids=lambda value: repr(value)[:32],
)
def test_a_wrong_command_is_answered_by_name_and_the_connection_goes_on(
    node: NodeProcess, command: list[bytes], error: bytes
) -> None:
    around = [b"SET", b"text", b"words"]
    assert exchange(node.connect, [encode_commands([around, command, around])]) == b"+OK\r\n" + error + b"+OK\r\n"


def test_the_largest_key_and_value_are_taken(node: NodeProcess) -> None:
    key, value = b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX
    conversation = encode_commands([[b"SET", key, value], [b"STRLEN", key], [b"DEL", key]])
    assert exchange(node.connect, [conversation]) == b"+OK\r\n:%d\r\n:1\r\n" % VALUE_BYTES_MAX


@pytest.mark.parametrize("plane", ["resp", "grpc", "admin"])
def test_noise_on_any_port_harms_nobody(node: NodeProcess, plane: str) -> None:
    noise = random.Random(plane)
    before = node.resident_bytes
    for _ in range(60):
        exchange(lambda: node.connect(plane), [noise.randbytes(noise.randrange(1, 4096))])
    for stream in (TLS_CLIENT_HELLO, HTTP_POST, PING * 10, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise.randbytes(4096)):
        exchange(lambda: node.connect(plane), [stream])
    assert_serves(node)
    assert node.resident_bytes - before < 16 * MIB


def test_random_resp_never_stops_a_node(node: NodeProcess) -> None:
    chance = random.Random(7)
    for _ in range(400):
        exchange(node.connect, [b"".join(chance.choices(FRAGMENTS, k=12))])
    assert_serves(node)


def test_half_a_command_and_silence_delay_nobody(node: NodeProcess) -> None:
    halves = [
        b"*",
        b"*3\r\n$3\r\nSET\r\n$",
        b"*2\r\n$3\r\nGET\r\n$100\r\nabc",
        b"SET a",
        b"*1048576\r\n$16777216\r\nabc",
    ]
    before = node.resident_bytes
    with ExitStack() as stack:
        for half in halves * 40:
            stack.enter_context(node.connect()).sendall(half)
        slow = stack.enter_context(node.connect())
        for byte in encode_command([b"SET", b"drop", b"by drop"]):
            slow.sendall(bytes([byte]))
        assert received(slow, 5) == b"+OK\r\n"
        assert_serves(node)
        assert node.resident_bytes - before < 16 * MIB


def test_an_idle_connection_is_closed_after_the_timeout(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--timeout", "1") as node, node.connect() as silent, node.connect() as half:
        half.sendall(b"*2\r\n$3\r\nGET")
        assert silent.recv(1) == b""
        assert half.recv(1) == b""
        assert_serves(node)


def test_a_client_that_never_reads_holds_little_memory_and_gets_all_in_the_end(node: NodeProcess) -> None:
    value = random.Random(1).randbytes(MIB)
    reply = b"$%d\r\n%b\r\n" % (MIB, value)
    count = 1500
    with node.connect() as deaf:
        deaf.sendall(encode_command([b"SET", b"large", value]))
        assert received(deaf, 5) == b"+OK\r\n"
        before = node.resident_bytes
        deaf.sendall(encode_command([b"GET", b"large"]) * count)
        deaf.sendall(encode_command([b"GET", b"no such key"]))
        for _ in range(20):
            assert_serves(node)
        assert node.resident_bytes - before < 64 * MIB
        for _ in range(count):
            assert received(deaf, len(reply)) == reply
        assert received(deaf, 5) == b"$-1\r\n"


def test_a_client_that_writes_without_reading_is_read_no_faster_than_it_reads(node: NodeProcess) -> None:
    before = node.resident_bytes
    with node.connect() as deaf:
        deaf.setblocking(False)
        chunk, sent, refusals = encode_command([b"ECHO", b"e" * 1000]) * 64, 0, 0
        deadline = time.monotonic() + TIMEOUT_S
        while refusals < 200 and sent < 512 * MIB and time.monotonic() < deadline:
            try:
                sent += deaf.send(chunk)
                refusals = 0
            except BlockingIOError:
                refusals += 1
                time.sleep(0.001)
        assert refusals == 200, f"{sent} bytes were taken from a client that reads nothing"
        assert node.resident_bytes - before < 64 * MIB
        assert_serves(node)


@pytest.mark.parametrize(
    "flood",
    [
        encode_command([b"PING"]) * 20_000,
        encode_commands([[b"SET", b"k", b"v"], [b"GET", b"k"]]) * 10_000,
        b"a\n" * 100_000,
    ],
    ids=["PING", "SET and GET", "unknown inline"],
)
def test_a_flood_of_small_commands_leaves_others_served(node: NodeProcess, flood: bytes) -> None:
    with node.connect() as flooder, node.connect() as other:
        flooder.setblocking(False)
        at = 0
        for _ in range(50):
            with suppress(BlockingIOError):
                for _ in range(100):
                    at = (at + flooder.send(flood[at:])) % len(flood)
            with suppress(BlockingIOError):
                for _ in range(100):
                    flooder.recv(READ_BYTES)
            other.sendall(PING)
            assert received(other, 7) == PONG


def test_a_hundred_thousand_pipelined_commands_are_answered_in_order(node: NodeProcess) -> None:
    count = 100_000
    with node.connect() as peer:
        stream = encode_commands([b"ECHO", b"%06d" % number] for number in range(count))
        expected = b"".join(b"$6\r\n%06d\r\n" % number for number in range(count))
        peer.setblocking(False)
        answered = bytearray()
        deadline = time.monotonic() + TIMEOUT_S
        while len(answered) < len(expected) and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                stream = stream[peer.send(stream[:MIB]) :] if stream else stream
            try:
                answered += peer.recv(READ_BYTES)
            except BlockingIOError:
                time.sleep(0.001)
        assert answered == expected


def test_connections_that_are_reset_leave_nothing_behind(node: NodeProcess) -> None:
    wait_until(lambda: connected_clients(node) == 0)
    for half in [b"", b"*3\r\n$3\r\nSET\r\n", encode_command([b"GET", b"large"]) * 50] * 60:
        with node.connect() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if half:
                peer.sendall(half)
    wait_until(lambda: connected_clients(node) == 0)
    assert_serves(node)


def test_one_client_too_many_is_told_so(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--maxclients", "2") as node, ExitStack() as stack:
        peers = [stack.enter_context(node.connect()) for _ in range(2)]
        for peer in peers:
            peer.sendall(PING)
            assert received(peer, 7) == PONG
        with node.connect() as third:
            assert received(third, 100) == b"-ERR max number of clients reached\r\n"
        peers[0].close()
        wait_until(lambda: exchange(node.connect, [PING]) == PONG)


def test_a_node_raises_its_limit_of_open_files_for_its_clients(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    try:
        with NodeProcess(tmp_path, "--maxclients", "2000") as node:
            raised, _ = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
            assert raised >= min(2000 + RESERVED_FILES, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_cannot_use_up_the_files_that_the_log_needs(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node, ExitStack() as stack:
        few = RESERVED_FILES + 50
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (few, few))
        assert exchange(node.connect, [encode_command([b"CONFIG", b"SET", b"maxclients", b"5000"])]) == b"+OK\r\n"
        assert [event["allowed_by_open_files"] for event in node.events() if event["event"] == "clients_limited"] == [
            50
        ]
        peers = [stack.enter_context(node.connect()) for _ in range(50)]
        for peer in peers:
            peer.sendall(PING)
            assert received(peer, 7) == PONG
        for _ in range(few):
            with node.connect() as refused:
                assert received(refused, 100) == b"-ERR max number of clients reached\r\n"
        peers[0].sendall(encode_commands([[b"SET", b"k", b"v"], [b"SAVE"]]))
        assert received(peers[0], 10) == b"+OK\r\n+OK\r\n"


def test_strangers_are_kept_short(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--requirepass", "secret") as node:
        for stream, error in (
            (b"*11\r\n", b"-ERR Protocol error: unauthenticated multibulk length\r\n"),
            (b"*2\r\n$3\r\nGET\r\n$16385\r\n", b"-ERR Protocol error: unauthenticated bulk length\r\n"),
        ):
            assert answer_until_closed(node.connect, stream) == error
        assert exchange(node.connect, [encode_command([b"GET", b"k"])]) == b"-NOAUTH Authentication required.\r\n"
        mset = encode_commands([[b"AUTH", b"secret"], [b"MSET"] + [b"k", b"v" * 20_000] * 10])
        assert exchange(node.connect, [mset]) == b"+OK\r\n+OK\r\n"


def test_ten_thousand_idle_connections_cost_memory_but_no_service(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    try:
        with NodeProcess(tmp_path, "--maxclients", "10100") as node, ExitStack() as stack:
            before = node.resident_bytes
            peers = [stack.enter_context(node.connect()) for _ in range(count)]
            wait_until(lambda: connected_clients(node) == count)
            assert_serves(node)
            assert (node.resident_bytes - before) / count < 16 * 1024
            for peer in peers[::100]:
                peer.sendall(PING)
                assert received(peer, 7) == PONG
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
