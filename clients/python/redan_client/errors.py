"""The errors of the client, sorted by what the caller may conclude, and how they are read from a call that failed.

Tree::

    RedanError
    ├── RequestError            the same request fails again
    │   └── AuthenticationError the password is wrong or missing
    ├── NotAppliedError         nothing was done: it is safe to ask again
    └── OutcomeUnknownError     a write may or may not be applied

Guarantees: an error that is not known to be harmless is an OutcomeUnknownError.
Leaves to the caller: whether a call is repeated (redan_client.policy).
Reference: proto/redan/kv/v1/kv.proto (errors); google.rpc.ErrorInfo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from redan_client.stubs import kv_pb2

DOMAIN: Final = "redan"
DETAILS_KEY: Final = "grpc-status-details-bin"
NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})

REFUSED_BY_GRPC: Final = frozenset(("INVALID_ARGUMENT", "UNIMPLEMENTED", "PERMISSION_DENIED", "NOT_FOUND"))
"""Codes that say without details that a call did nothing, and would do nothing again."""


class RedanError(Exception):
    """Base of all errors of the client."""

    def __init__(
        self, text: str, *, code: str = "UNKNOWN", reason: str = "", metadata: Mapping[str, str] = NO_METADATA
    ) -> None:
        super().__init__(text)
        self.code = code
        """Name of the canonical status code, such as ABORTED."""
        self.reason = reason
        """Why, such as WRONG_TYPE; empty if no node said so."""
        self.metadata = metadata
        """What else the node said, such as `prefix`, the first word of the error that a Redis client would see."""


class RequestError(RedanError):
    """The request is wrong: the same one fails again."""


class AuthenticationError(RequestError):
    """The password is wrong or missing."""


class NotAppliedError(RedanError):
    """Nothing was done and nothing will happen later."""


class OutcomeUnknownError(RedanError):
    """The write may or may not be applied, or may still be."""


_BY_OUTCOME: Final[dict[str, type[RedanError]]] = {"rejected": RequestError, "not_applied": NotAppliedError}


def error_of_call(code: str, text: str, trailers: Iterable[tuple[str, str | bytes]]) -> RedanError:
    """Return the error that the status of a call says."""
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes) and (info := _error_info(value)) is not None:
            metadata = dict(info.metadata)
            kind = _BY_OUTCOME.get(metadata.get("outcome", ""), OutcomeUnknownError)
            if code == "UNAUTHENTICATED":
                kind = AuthenticationError
            elif "outcome" not in metadata and code == "FAILED_PRECONDITION":
                kind = RequestError  # ClusterService refuses so
            return kind(text, code=code, reason=info.reason, metadata=metadata)
    if code == "UNAUTHENTICATED":
        return AuthenticationError(text, code=code)
    kind = RequestError if code in REFUSED_BY_GRPC else OutcomeUnknownError
    return kind(text.partition("\n")[0] or code, code=code)


def error_of_command(error: kv_pb2.CommandError) -> RedanError:
    """Return the error that one command of a pipeline was answered with."""
    outcome = kv_pb2.Outcome.Name(error.outcome).removeprefix("OUTCOME_").lower()
    kind = _BY_OUTCOME.get(outcome, OutcomeUnknownError)
    metadata = {"outcome": outcome, "prefix": error.prefix}
    return kind(error.message, code=_CODES.get(error.code, "UNKNOWN"), reason=error.reason, metadata=metadata)


def _error_info(encoded: bytes) -> Any:
    """Return the ErrorInfo of Redan in an encoded google.rpc.Status, None if there is none."""
    try:
        status = status_pb2.Status.FromString(encoded)
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                if info.domain == DOMAIN:
                    return info
    except DecodeError:
        pass
    return None


_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
