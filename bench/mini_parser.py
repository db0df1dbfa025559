"""A parser of RESP commands in plain Python, which mypyc can compile as it stands: for bench/runtimes only."""

from __future__ import annotations


def parse(data: bytes) -> tuple[list[list[bytes]], int]:
    """Return the complete commands of some bytes, and how many bytes they are."""
    commands: list[list[bytes]] = []
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return commands, position
        count = int(data[position + 1 : end])
        at = end + 2
        args: list[bytes] = []
        while len(args) < count:
            end = data.find(b"\r\n", at)
            if end < 0:
                return commands, position
            size = int(data[at + 1 : end])
            at = end + 2
            if len(data) < at + size + 2:
                return commands, position
            args.append(data[at : at + size])
            at += size + 2
        commands.append(args)
        position = at


def answer(values: dict[bytes, bytes], commands: list[list[bytes]]) -> bytes:
    """Run GET and SET on a dict; return their replies."""
    replies: list[bytes] = []
    for args in commands:
        name = args[0].upper()
        if name == b"GET":
            value = values.get(args[1])
            replies.append(b"$-1\r\n" if value is None else b"$" + str(len(value)).encode() + b"\r\n" + value + b"\r\n")
        elif name == b"SET":
            values[args[1]] = args[2]
            replies.append(b"+OK\r\n")
        elif name == b"PING":
            replies.append(b"+PONG\r\n")
        else:
            replies.append(b"-ERR unknown command\r\n")
    return b"".join(replies)
