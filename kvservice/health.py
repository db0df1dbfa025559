"""What probes and health checks ask of the node: is it loaded, and should clients be sent to it.

Guarantees: one meaning of ready for both planes: HTTP probes (kvservice/admin) and gRPC checks (kvservice/api/health).
Leaves to the node: the answers (kvservice/server).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class NodeHealth(Protocol):
    """The health of a node."""

    @property
    def is_started(self) -> bool:
        """Whether snapshot and log are loaded; never false again after it was true."""

    def reasons_not_ready(self) -> Sequence[str]:
        """Return why clients should not be sent here (loading, no leader, draining); empty when they should."""
