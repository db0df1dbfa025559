"""Entry point of a pod: finds out how its node comes into the cluster, then becomes `redan serve`.

Cases, by what the node's own directory and the other nodes say; nobody asks whether this is an install or an upgrade:

A. there is a log: the node comes back. The flags below are given all the same: they matter if its META is damaged;
B. a node answers that is in a cluster without this one: this one came with a larger number of replicas, and joins;
C. the ordinal is beyond the number of replicas, because the file of that number is older than the pod: it joins too;
D. else: the nodes found a cluster together, or this one lost its disk. `redan serve` tells these two apart.

Guarantees: nothing is written, and nothing decided that `redan serve` does not check again. The process stays the
    same one, so signals reach the node. A wrong guess ends with exit code 2, and the container asks anew.
Leaves to the caller: all other settings, as REDAN_… variables and in the file that REDAN_CONFIG names.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

PEER_PORT = 7401
GRPC_PORT = 7400
ASK_SECONDS = 3
ASK_SECONDS_MAX = 60  # with a resolver that does not answer


def others_of(name: str, replicas: int) -> list[str]:
    """Return the names of the other pods, by the number of replicas."""
    stem = name.rpartition("-")[0]
    return [other for ordinal in range(replicas) if (other := f"{stem}-{ordinal}") != name]


def flags(name: str, replicas: int, domain: str, members: Collection[str] | None) -> list[str]:
    """Return the flags that say how a node comes into its cluster; `members` is None if nobody knows of a cluster."""
    others = others_of(name, replicas)
    ordinal = int(name.rpartition("-")[2])
    if ordinal >= replicas or (members is not None and name not in members):
        return ["--join", ",".join(f"{other}.{domain}:{PEER_PORT}" for other in others)]
    if not others:
        return []
    founders = sorted([*others, name], key=lambda member: int(member.rpartition("-")[2]))
    return ["--initial-cluster", ",".join(f"{member}={member}.{domain}:{PEER_PORT}" for member in founders)]


def has_log(directory: Path) -> bool:
    """Tell whether a node has been here that belonged to a cluster: it wrote a log at once."""
    wal = directory / "wal"
    return wal.is_dir() and any(wal.iterdir())


def members_by(others: Collection[str], domain: str, password_file: str) -> set[str] | None:
    """Return the members of the cluster that the others are in, None if none of them says that it is in one."""
    if not others:
        return None
    command = ["redan", "ctl", "members", "--output", "json", "--timeout", str(ASK_SECONDS)]
    for other in others:
        command += ["--endpoint", f"{other}.{domain}:{GRPC_PORT}"]
    if password_file:
        command += ["--password-file", password_file]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS_MAX, check=True)
    except subprocess.CalledProcessError as error:
        print(f"start: nobody knows of a cluster yet: {error.stderr.strip()}", file=sys.stderr)
        return None
    except subprocess.TimeoutExpired:
        print(f"start: nobody said in {ASK_SECONDS_MAX} s whether there is a cluster", file=sys.stderr)
        return None
    return {member["name"] for member in json.loads(answer.stdout)}


def main() -> None:
    """Replace this process by the node."""
    parser = argparse.ArgumentParser(description="Start one node of a StatefulSet.")
    parser.add_argument("--domain", required=True, help="domain of the service that gives each pod a name")
    parser.add_argument("--replicas-file", required=True, type=Path, help="file with the number of replicas")
    arguments = parser.parse_args()
    name = os.environ["REDAN_NAME"]
    replicas = int(arguments.replicas_file.read_text(encoding="ascii"))
    members = None
    if not has_log(Path(os.environ["REDAN_DATA_DIR"])):
        members = members_by(others_of(name, replicas), arguments.domain, os.environ.get("REDAN_REQUIREPASS_FILE", ""))
    command = ["redan", "serve", *flags(name, replicas, arguments.domain, members)]
    print(f"start: {' '.join(command)}", file=sys.stderr, flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
