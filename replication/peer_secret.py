"""The cluster secret: how two nodes show each other that both know it, without saying it.

Order, for every call between nodes: the side that dials asks for a number that was never used (Challenge) and gives one
of its own → its call carries that number and an HMAC of both under the secret → the side that answers checks it before
it reads anything else, and sends an HMAC of its own in front of its answer → the side that dials checks that one.

Guarantees: what is refused is refused before a byte of it is looked at. A number counts once, and for a minute. The two
HMACs differ by their label, so neither side can give back what it was given. They are compared in constant time. The
secret stands in no log, no error and no message, and there is no text of this object that has it.
Leaves to the caller: saying in its log who was refused. Whoever sits on the wire can still read and change what
follows: that is what certificates are for. Whoever reaches the port can ask for numbers without knowing the secret, and
so drive out those of others before their calls come, who then have to ask again: keep the port to nodes.
Reference: RFC 2104 (HMAC), with SHA-256 and 256 bits of a random number from each side.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from redan.raft.v1 import raft_pb2

CHALLENGE: Final = "/redan.raft.v1.RaftService/Challenge"
NAME_KEY: Final = "redan-node"
NONCE_KEY: Final = "redan-nonce-bin"
PROOF_KEY: Final = "redan-proof-bin"
NONCE_BYTES: Final = 32
ISSUED_MAX: Final = 1024
"""Numbers that wait for their call: 64 members with four calls each, four times over."""
ISSUED_SECONDS: Final = 60.0
UNNAMED: Final = "(unnamed)"
DIALS: Final = b"redan: the node that dials"
ANSWERS: Final = b"redan: the node that answers"
NO_MATCH: Final = "cluster secret does not match"

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")


class Unproven(Exception):  # noqa: N818 -- it says what happened
    """A call without the proof that its caller knows the secret; the text is for an operator."""


class SecretUnknown(OSError):  # noqa: N818 -- it says what happened
    """The node that was dialed has not shown that it knows the secret."""


class Proof(NamedTuple):
    """What one call to another node carries, and what has to come back."""

    metadata: tuple[tuple[str, str | bytes], ...]
    expected: bytes = b""

    async def check(self, call: Any) -> None:
        """Wait for the other side's proof. Raise SecretUnknown if it has none; call it once an answer has begun."""
        if self.expected:
            given = _value_of(await call.initial_metadata() or (), PROOF_KEY)
            if not isinstance(given, bytes) or not hmac.compare_digest(given, self.expected):
                raise SecretUnknown("the node that answers does not know the cluster secret")


class _Issued(NamedTuple):
    """A number that waits for its call."""

    name: str
    nonce: bytes
    """The number of the side that dials."""
    until_s: float


class ClusterSecret:
    """The secret of one node, for both sides of its calls."""

    __slots__ = ("_issued", "_key")

    def __init__(self, secret: str) -> None:
        assert secret
        self._key = secret.encode("utf-8", "surrogateescape")
        self._issued: dict[bytes, _Issued] = {}
        """By the number; the oldest first."""

    def _proof(self, label: bytes, name: str, dialing: bytes, answering: bytes) -> bytes:
        return hmac.digest(self._key, b"\0".join((label, name.encode(), dialing + answering)), "sha256")

    # -- the side that dials -------------------------------------------------------------------------------------------

    async def prove(self, channel: grpc.aio.Channel, name: str, timeout_seconds: float) -> Proof:
        """Return what the next call on a channel has to carry; ``name`` is this node's.

        Raise AioRpcError, or SecretUnknown for an answer that is none.
        """
        mine = secrets.token_bytes(NONCE_BYTES)
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHALLENGE)
        request = raft_pb2.ChallengeRequest(name=name, nonce=mine)
        answer = await ask(request.SerializeToString(), timeout=timeout_seconds)
        try:
            theirs = raft_pb2.ChallengeResponse.FromString(answer).nonce
        except DecodeError:
            raise SecretUnknown("the answer is not a redan.raft.v1.ChallengeResponse") from None
        if len(theirs) != NONCE_BYTES:
            raise SecretUnknown(f"the number of the node that answers has {len(theirs)} bytes, not {NONCE_BYTES}")
        proof = self._proof(DIALS, name, mine, theirs)
        metadata = ((NAME_KEY, name), (NONCE_KEY, theirs), (PROOF_KEY, proof))
        return Proof(metadata, self._proof(ANSWERS, name, mine, theirs))

    # -- the side that answers -----------------------------------------------------------------------------------------

    def challenge(self, name: str, nonce: bytes) -> bytes:
        """Return a number for the next call of a node that dials with a number of its own. Raise Unproven."""
        if not _NAME.fullmatch(name):
            raise Unproven("it gives no name that a node can have")
        if len(nonce) != NONCE_BYTES:
            raise Unproven(f"its number has {len(nonce)} bytes, and {NONCE_BYTES} are wanted")
        now_s = monotonic()
        issued = self._issued
        while issued and (len(issued) >= ISSUED_MAX or next(iter(issued.values())).until_s < now_s):
            del issued[next(iter(issued))]
        mine = secrets.token_bytes(NONCE_BYTES)
        issued[mine] = _Issued(name, nonce, now_s + ISSUED_SECONDS)
        return mine

    def accept(self, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
        """Return what proves this node to a caller that has proven itself. Raise Unproven."""
        given = tuple(metadata)
        mine, proof = _value_of(given, NONCE_KEY), _value_of(given, PROOF_KEY)
        if not isinstance(mine, bytes) or not isinstance(proof, bytes):
            raise Unproven("it has no cluster secret, and this node has one")
        issued = self._issued.pop(mine, None)
        if issued is None or issued.until_s < monotonic():
            raise Unproven("its proof of the cluster secret comes late, or a second time")
        if not hmac.compare_digest(proof, self._proof(DIALS, issued.name, issued.nonce, mine)):
            raise Unproven(NO_MATCH)
        return self._proof(ANSWERS, issued.name, issued.nonce, mine)


def unproven(name: str) -> Proof:
    """Return what a call of a node without a secret carries."""
    return Proof(((NAME_KEY, name),) if name else ())


def named_by(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return who a caller says it is, which may be anybody."""
    name = _value_of(metadata, NAME_KEY)
    return printable_name(name) if isinstance(name, str) else UNNAMED


def printable_name(name: str) -> str:
    """Return a name that a caller gave, if it is one that a node can have."""
    return name if _NAME.fullmatch(name) else UNNAMED


def _value_of(metadata: Iterable[tuple[str, str | bytes]], wanted: str) -> str | bytes | None:
    return next((value for key, value in metadata if key == wanted), None)
