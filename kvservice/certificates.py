"""The certificates that the settings name for the plane between nodes.

Guarantees: a file that cannot be used is a setting that is refused, under the name by which it was given.
Leaves to the caller: files that are replaced while the node runs (replication/peer_channel).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvservice.config import Config
from kvservice.config_load import ConfigError, Loaded
from replication.peer_pems import PeerTls, PemUnusable, check_pems

_SETTINGS: Final[Mapping[str, str]] = {
    "certificate": "peer_tls_cert",
    "key": "peer_tls_key",
    "authority": "peer_tls_ca",
}


def peer_tls(config: Config) -> PeerTls | None:
    """Return the files for TLS between nodes, None without."""
    if config.peer_tls_cert is None or config.peer_tls_key is None or config.peer_tls_ca is None:
        return None
    return PeerTls(config.peer_tls_cert, config.peer_tls_key, config.peer_tls_ca)


def check_certificates(loaded: Loaded) -> None:
    """Raise ConfigError if a certificate that was named cannot be used. Blocks on files."""
    tls = peer_tls(loaded.config)
    if tls is None:
        return
    try:
        check_pems(tls)
    except PemUnusable as error:
        raise ConfigError([f"{loaded.places[_SETTINGS[error.part]]}: {error}"]) from error
