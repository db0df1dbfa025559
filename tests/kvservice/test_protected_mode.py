"""Protected mode: who is on the loopback interface, and what becomes of others on each plane."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvservice.api.calls import CallContext, Gate
from kvservice.api.status import outcome_of
from kvservice.config import Config
from kvservice.errors import NoAuthentication
from kvservice.protected_mode import ProtectedMode, denies, is_loopback
from redan.kv.v1 import kv_pb2

OUTSIDE = "10.1.2.3:40000"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.8.7:65535", "[::1]:1", "[::ffff:127.0.0.1]:1"])
def test_every_address_of_the_loopback_interface_is_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        OUTSIDE,
        "128.0.0.1:1",
        "[fd00::2]:1",
        "[fe80::1%eth0]:1",
        "[::ffff:10.0.0.1]:1",
        "0.0.0.0:1",
        "[::]:1",
        "",
        "x:1",
    ],
)
def test_other_addresses_and_what_is_none_are_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("settings", "is_denied"),
    [({}, True), ({"protected_mode": False}, False), ({"requirepass": "secret"}, False)],
)
def test_callers_from_outside_are_denied_while_there_is_neither_password_nor_permission(
    settings: dict[str, object], is_denied: bool
) -> None:
    config = Config.model_validate(settings)
    assert denies(config, OUTSIDE) is is_denied
    assert not denies(config, "127.0.0.1:40000")


def called_from(peer: str) -> CallContext:
    """Return the context of a call without metadata."""
    return cast(CallContext, SimpleNamespace(peer=lambda: peer, invocation_metadata=tuple))


def gate(**settings: Any) -> Gate:
    return Gate(Config(**settings), lambda _method, _error: None)


def test_a_call_from_outside_is_refused_and_told_both_ways_out() -> None:
    with pytest.raises(ProtectedMode) as refused:
        gate().admit(called_from("ipv4:10.1.2.3:40000"))
    assert (refused.value.grpc_status, refused.value.reason) == ("PERMISSION_DENIED", "PROTECTED_MODE")
    assert outcome_of(refused.value) == kv_pb2.OUTCOME_REJECTED
    assert "--requirepass-file" in refused.value.text
    assert "--protected-mode no" in refused.value.text
    with pytest.raises(ProtectedMode):
        gate().admit(called_from("ipv6:%5Bfd00::2%5D:40000"))


def test_a_call_from_this_machine_is_served() -> None:
    for peer in ("ipv4:127.0.0.1:40000", "ipv6:%5B::1%5D:40000"):
        gate().admit(called_from(peer))
    gate(protected_mode=False).admit(called_from("ipv4:10.1.2.3:40000"))


def test_with_a_password_a_call_from_outside_is_asked_for_it() -> None:
    with pytest.raises(NoAuthentication):
        gate(requirepass="secret").admit(called_from("ipv4:10.1.2.3:40000"))
