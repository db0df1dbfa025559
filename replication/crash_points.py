"""The named places of the driver at which tests kill the process.

Order, for one entry: proposed → persisting → sending → sent → durable → promising → promised → applying → applied.
"""

from __future__ import annotations

from typing import Final

CRASH_POINTS: Final = {
    "proposed": "an entry is in the leader's memory, and nowhere else",
    "persisting": "entries or a hard state are about to be handed to the log",
    "voting": "a hard state was handed to the log, and is not known to be durable",
    "sending": "messages that promise nothing are about to go out",
    "sent": "they are queued for the peers",
    "durable": "the log has reported",
    "promising": "votes and acknowledgements are about to go out",
    "promised": "they are queued for the peers",
    "applying": "a committed entry is about to be applied",
    "applied": "it is applied, and who waited for it is answered",
    "restoring": "a received snapshot is about to take the place of the state",
    "restored": "it has",
}


def no_crash(_point: str) -> None:
    """Do nothing: production's crash point."""
