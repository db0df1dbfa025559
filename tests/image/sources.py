"""What an image is built from, as one digest: `python -m tests.image.sources` prints it.

Guarantees: another Dockerfile, another lock file or another line of the program is another digest; files that are not
    in version control or not in the image are not looked at.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = (
    *("Dockerfile", ".dockerignore", ".ci/build_image", "LICENSE", "pyproject.toml", "clients/python/redan_client"),
    *("requirements.lock", "requirements-dev.lock", "proto/redan", "persistence", "replication", "kvservice"),
)
GIT_SECONDS_MAX: Final = 60


def digest() -> str:
    """Return the digest of the sources as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GIT_SECONDS_MAX,
        check=True,
    )
    summed = hashlib.sha256()
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        path = ROOT / name
        if path.is_file():
            summed.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return summed.hexdigest()


if __name__ == "__main__":
    print(digest())
