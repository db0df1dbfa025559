"""A caller of ClusterService that finds its way: to an endpoint that answers, and from there to the leader.

Guarantees: an endpoint that does not answer is passed over; a node that is not the leader is left for the one that it
names; all within one time limit. While nobody leads, an election is waited for, LEADER_SECONDS at most. Every call may
be repeated: adding, promoting and handing over twice is the same as once, and removing twice says that the member is
gone. That nothing was changed is said without a reserve only if it is true of every attempt.
Leaves to the caller: printing, and exit codes (kvservice/cli_ctl).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from kvservice.errors import NotLeader
from redan.cluster.v1 import cluster_pb2

NOT_LEADER: Final = NotLeader.reason
PAUSE_SECONDS: Final = 0.1
"""Before everybody is asked once more, while there is no leader."""
LEADER_SECONDS: Final = 5.0
"""How long those who answer may know of no leader: ten elections, and leader_wait_ms, at the defaults."""
PROBE_SECONDS: Final = 2.0
"""How long one endpoint gets when there are others."""
_SERVICE: Final = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"]


class CallFailed(Exception):  # noqa: N818 - it says what happened
    """No endpoint carried the call out; the text is for people."""

    def __init__(self, text: str, reason: str = "") -> None:
        self.reason = reason
        """The reason of the ErrorInfo, "" if nobody answered at all."""
        super().__init__(text)


class ClusterClient:
    """Calls ClusterService at one of several endpoints."""

    def __init__(self, endpoints: Sequence[str], *, password: str = "", timeout_seconds: float = 10.0) -> None:
        assert endpoints
        self._endpoints = list(dict.fromkeys(endpoints))
        self._timeout_seconds = timeout_seconds
        self._metadata = (("authorization", f"Bearer {password}"),) if password else ()

    def ask(self, endpoint: str, method: str, request: Message, timeout_seconds: float) -> Any:
        """Call one endpoint. Raises grpc.RpcError."""
        described = _SERVICE.methods_by_name[method]
        response = getattr(cluster_pb2, described.output_type.name)
        # No proxy of the environment stands between a person and a node.
        with grpc.insecure_channel(endpoint, options=[("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary(
                f"/{_SERVICE.full_name}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString,
            )
            return call(request, timeout=timeout_seconds, metadata=self._metadata)

    def call(self, method: str, request: Message) -> Any:
        """Call the first endpoint that answers, or the leader that it names. Raises CallFailed."""
        deadline = monotonic() + self._timeout_seconds
        waiting = deque(self._endpoints)
        problem = CallFailed("no endpoint")
        is_open = False
        leaderless_s: float | None = None
        while (left := deadline - monotonic()) > 0:
            if not waiting:
                sleep(min(PAUSE_SECONDS, left))
                waiting.extend(self._endpoints)
                continue
            endpoint = waiting.popleft()
            try:
                # An endpoint may be a host that swallows packets; of a single one it is better to wait for the answer.
                return self.ask(endpoint, method, request, left if not waiting else min(left, PROBE_SECONDS))
            except grpc.RpcError as error:
                problem, elsewhere = _explained(endpoint, error)
                is_open = is_open or _may_have_happened(error, problem)
                if elsewhere:
                    waiting.appendleft(elsewhere)
                    leaderless_s = None
                elif not _may_pass(error, problem):
                    raise problem from None
                elif problem.reason == NOT_LEADER:
                    leaderless_s = leaderless_s or monotonic()
                    if monotonic() >= leaderless_s + LEADER_SECONDS:
                        break
        if problem.reason == NOT_LEADER and is_open:
            raise CallFailed(f"{problem}; but an attempt before had no answer: look at the members", problem.reason)
        raise problem


def _may_pass(error: Any, problem: CallFailed) -> bool:
    """Tell whether another endpoint, or the same one a little later, may answer otherwise."""
    if problem.reason in (NOT_LEADER, "LOADING", "SHUTTING_DOWN", "CHANGE_IN_PROGRESS"):
        return True
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and not problem.reason


def _may_have_happened(error: Any, problem: CallFailed) -> bool:
    """Tell whether a node may have got a call, and never said what became of it."""
    return not problem.reason and "failed to connect" not in (error.details() or "")


def _explained(endpoint: str, error: Any) -> tuple[CallFailed, str]:
    """Return what to tell a person of an error, and where to ask instead, if the error says so."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            elsewhere = str(info.metadata.get("leader_grpc_address", "")) if info.reason == NOT_LEADER else ""
            return CallFailed(f"{endpoint}: {error.details()}", str(info.reason)), elsewhere
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallFailed(f"{endpoint}: no answer in time"), ""
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return CallFailed(f"{endpoint}: not the gRPC address of a node: what answers there knows no such call"), ""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return CallFailed(f"{endpoint}: cannot be reached ({_first_line(error.details())})"), ""
    return CallFailed(f"{endpoint}: {error.code().name}: {_first_line(error.details())}"), ""


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
