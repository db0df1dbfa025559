"""The PEM files by which nodes speak TLS to each other: read, and looked at before anything listens.

Guarantees: of a file that cannot be used it is said which one it is and why, also where OpenSSL or gRPC would not.
Leaves to the caller: reading them off the event loop, and again when they are replaced (replication/peer_channel).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple


class PeerTls(NamedTuple):
    """Paths of PEM files: this node's certificate and key, and the authority that signed those of all nodes."""

    certificate: Path
    key: Path
    authority: Path


class PemUnusable(OSError):  # noqa: N818 - it says what is the case
    """A file cannot be used; ``part`` is the field of PeerTls that names it."""

    def __init__(self, part: str, text: str) -> None:
        self.part = part
        super().__init__(text)


def read_pems(tls: PeerTls) -> tuple[bytes, bytes, bytes]:
    """Return key, certificate and authority. Raise OSError."""
    return tls.key.read_bytes(), tls.certificate.read_bytes(), tls.authority.read_bytes()


def check_pems(tls: PeerTls) -> None:
    """Raise PemUnusable for the first file that cannot be used. Blocks on files."""
    for part, path in tls._asdict().items():
        try:
            path.read_bytes()
        except OSError as error:
            raise PemUnusable(part, f"{path} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key that is encrypted would be asked for at the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except ssl.SSLError as error:
        text = f"{tls.certificate} and {tls.key} are no certificate (PEM) with its key: {error}"
        raise PemUnusable("certificate", text) from error
    try:
        context.load_verify_locations(tls.authority)
    except ssl.SSLError as error:
        raise PemUnusable(
            "authority", f"{tls.authority} holds no certificate (PEM) of an authority: {error}"
        ) from error
