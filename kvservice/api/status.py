"""Errors as gRPC sees them: the status of a call with its details, and what a caller may conclude.

Details: google.rpc.ErrorInfo {reason, domain "redan", metadata outcome, prefix, and what the error adds};
google.rpc.BadRequest with the fields that are wrong; google.rpc.RetryInfo where trying again on the same node soon is
what helps.

Guarantees: each class of kvservice.errors has a status, through its own attributes; no text of an error can break a
call, whatever bytes of a client it repeats.
Leaves to the caller: ending the call.
Reference: google.rpc.Status and error_details.proto; redan.kv.v1.Outcome.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from kvservice.errors import NotAppliedError, RedanError, RequestError
from redan.kv.v1 import kv_pb2

DOMAIN: Final = "redan"
RETRY_DELAY_MS: Final = 100
"""What UNAVAILABLE suggests: an election or the end of a drain takes a few hundred ms."""
TEXT_CHARS_MAX: Final = 1024
"""Errors travel in HTTP/2 trailers, which clients bound to 8 KiB by default; text and details both hold it."""


class InvalidField(RequestError):  # noqa: N818 - named as the rest of the tree
    """A field of a request is out of its range."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


def code_of(error: RedanError) -> grpc.StatusCode:
    """Return the canonical code of an error."""
    return grpc.StatusCode[error.grpc_status]


def outcome_of(error: RedanError) -> kv_pb2.Outcome:
    """Return what a caller may conclude from an error."""
    if isinstance(error, RequestError):
        return kv_pb2.OUTCOME_REJECTED
    if isinstance(error, NotAppliedError):
        return kv_pb2.OUTCOME_NOT_APPLIED
    # OutcomeUnknownError, and whatever is of no known class: the careful answer.
    return kv_pb2.OUTCOME_UNKNOWN


def text_of(error: RedanError) -> str:
    """Return the text of an error as valid Unicode of bounded length."""
    return error.text[:TEXT_CHARS_MAX].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def status_of(error: RedanError) -> status_pb2.Status:
    """Return the status of a call that ends with an error."""
    outcome = kv_pb2.Outcome.Name(outcome_of(error)).removeprefix("OUTCOME_").lower()
    status = status_pb2.Status(code=code_of(error).value[0], message=text_of(error))
    metadata = {"outcome": outcome, "prefix": error.resp_prefix, **error.metadata}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if isinstance(error, InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.description)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.grpc_status == "UNAVAILABLE":
        delay = Duration(nanos=RETRY_DELAY_MS * 1_000_000)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status
