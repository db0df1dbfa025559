"""Protected mode: who is served while there is no password.

Guarantees: while ``protected_mode`` is on and no password is set, nobody from beyond the loopback interface is served
over RESP, or by KVService and ClusterService; who is refused is told the ways out. Both settings may change while the
node runs, and count from the next connection (RESP) or call (gRPC) on.
Leaves to the caller: the plane between nodes, which has a secret and certificates of its own; probes, metrics, and the
health and reflection of gRPC, which anybody may ask.
Reference: Redis, networking.c: clientAcceptHandler; text of redis-server 7.0.15.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from kvservice.config import Config
from kvservice.errors import RequestError

DENIED: Final = (
    "DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the "
    "default user. In this mode connections are only accepted from the loopback interface. If you want to connect from "
    "external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending "
    "the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host "
    "the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do so. Use CONFIG "
    "REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by editing the "
    "Redis configuration file, and setting the protected mode option to 'no', and then restarting the server. 3) If "
    "you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an "
    "authentication password for the default user. NOTE: You only need to do one of the above things in order for the "
    "server to start accepting connections from the outside."
)
"""What a Redis client is told, word for word as by Redis."""


class ProtectedMode(RequestError):  # noqa: N818 - named as the rest of the tree
    """A gRPC call from another machine while there is no password."""

    resp_prefix = "DENIED"
    grpc_status = "PERMISSION_DENIED"
    reason = "PROTECTED_MODE"
    default_text = (
        "protected mode: no password is set, so only callers on the node's own machine are served. Set a password "
        "(--requirepass-file), or turn protected mode off (--protected-mode no) where the network is closed to others"
    )


def denies(config: Config, address: str) -> bool:
    """Tell whether a caller at ``address`` (host:port, or [host]:port) is refused."""
    return config.protected_mode and not config.requirepass and not is_loopback(address)


def is_loopback(address: str) -> bool:
    """Tell whether host:port is on the loopback interface; what is no address of a network is not."""
    return _is_loopback(address.rpartition(":")[0].strip("[]"))


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A socket for both families shows callers of the older one in this form.
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
