"""Certificates for tests of mutual TLS, made by the openssl program.

Guarantees: valid for two days, for 127.0.0.1, as a server and as a client.
Leaves to the caller: skipping where there is no openssl (``OPENSSL`` is None).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from replication.peer_pems import PeerTls

OPENSSL: Final = shutil.which("openssl")


def openssl(*arguments: str) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], check=True, capture_output=True, timeout=60)


def authority(directory: Path, name: str) -> Path:
    """Make an authority; return the path of its certificate, beside which is its key."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.pem"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", f"/CN={name}", "-keyout", str(path.with_suffix(".key")), "-out", str(path)),
    )
    return path


def certificate(directory: Path, name: str, signer: Path, *, host: str = "IP:127.0.0.1") -> PeerTls:
    """Make a certificate for a host, as subjectAltName has it, signed by an authority."""
    key, request, path = (directory / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName={host}\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(request)),
    )
    openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(signer), "-CAkey", str(signer.with_suffix(".key"))),
        *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(path)),
    )
    return PeerTls(path, key, signer)
