"""Every setting of a node, each declared once: its type, bounds, default, unit and meaning.

Guarantees: a `Config` that exists is valid, each field alone and all together, also after `change`. All else about
    settings is derived from here: flags of `redan serve`, REDAN_… variables, TOML keys, `.env.example`, `redan.toml`,
    CONFIG GET and CONFIG SET.
Leaves to the caller: where values come from and which source wins (kvservice.config_load), Redis's names for them
    (kvservice.config_redis), and acting on a setting that changed while the node runs (`Setting.mutable`).
Layout: a unit stands last in a name (`_bytes_max`, `_ms`, `_seconds`), except where Redis has named the setting:
    those keep Redis's name, and their unit stands in `Setting.unit`.

pydantic checks, and pydantic-settings is left out: it would take 0.17 s more at each start (measured), and keeps
neither the origin of a value nor the names it does not know, which are what kvservice.config_load is for.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from kvservice.config_rows import SECRET_CHARACTERS_MAX, Setting, SettingTraits, row_of
from kvservice.config_values import (
    ANY_HOSTS,
    ClusterMember,
    HostPort,
    parse_address,
    parse_addresses,
    parse_integer,
    parse_member_name,
    parse_members,
    parse_optional_address,
    parse_optional_file,
    parse_size,
    parse_switch,
)

KB: Final = 1024
MB: Final = 1024 * KB
GB: Final = 1024 * MB
CLUSTER_MEMBERS_MAX: Final = 64
"""As replication/core has it, which is not imported here: every command of `redan` would pay for it."""
SECRET_CHARACTERS_MIN: Final = 16
"""Of the secret of nodes: what a stranger makes them say of it can be compared with guesses for as long as he likes."""

Address = Annotated[HostPort, PlainValidator(parse_address)]
OptionalAddress = Annotated[HostPort | None, PlainValidator(parse_optional_address)]
Addresses = Annotated[tuple[HostPort, ...], PlainValidator(parse_addresses)]
OptionalFile = Annotated[Path | None, PlainValidator(parse_optional_file)]
Size = Annotated[int, BeforeValidator(parse_size)]
Whole = Annotated[int, BeforeValidator(parse_integer)]
Switch = Annotated[bool, BeforeValidator(parse_switch)]
NodeName = Annotated[str, PlainValidator(parse_member_name)]
Members = Annotated[tuple[ClusterMember, ...], PlainValidator(parse_members)]
Directory = Annotated[Path, BeforeValidator(lambda value: parse_directory(value))]
Secret = Annotated[str, Field(max_length=SECRET_CHARACTERS_MAX)]

FsyncMode = Literal["always", "interval", "os"]
EvictionPolicy = Literal[
    "noeviction",
    "allkeys-lru",
    "volatile-lru",
    "allkeys-lfu",
    "volatile-lfu",
    "allkeys-random",
    "volatile-random",
    "volatile-ttl",
]
ReadMode = Literal["linearizable", "lease", "stale"]
DebugMode = Literal["no", "yes", "local"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]


def parse_directory(value: object) -> Path:
    """Read the path of a directory; an empty one is refused, because it would mean the current directory."""
    if isinstance(value, (str, Path)) and str(value).strip():
        return Path(value)
    raise ValueError("empty; name a directory")


def _setting(
    section: str,
    default: Any,
    doc: str,
    *,
    unit: str = "",
    mutable: bool = False,
    secret: bool = False,
    aliases: tuple[str, ...] = (),
    ge: int | None = None,
    le: int | None = None,
) -> Any:
    """Declare one setting; the result is what pydantic wants on the right of the `=`."""
    traits = SettingTraits(section, unit, mutable, secret, aliases)
    return Field(default, description=doc, ge=ge, le=le, json_schema_extra={"traits": traits})  # type: ignore[dict-item]


_node = partial(_setting, "node")
_cluster = partial(_setting, "cluster")
_disk = partial(_setting, "disk")
_memory = partial(_setting, "memory")
_clients = partial(_setting, "clients")
_watching = partial(_setting, "observability")

SECTIONS: Final[Mapping[str, str]] = {
    "node": "The node and its addresses",
    "cluster": "The cluster and the other nodes",
    "disk": "Log and snapshots",
    "memory": "Keyspace and memory",
    "clients": "Clients and limits",
    "observability": "Logs, slow log and latency",
}


class Config(BaseModel):
    """The settings of one node; attributes are read, and only `change` writes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: NodeName = _node("n1", "Name of this node, unique in the cluster and kept for its life.")
    data_dir: Directory = _node(Path("./data"), "Directory of log and snapshots, used by one process at a time.")
    resp_addr: Address = _node(HostPort("127.0.0.1", 6379), "Where Redis clients connect.")
    grpc_addr: Address = _node(HostPort("127.0.0.1", 7400), "Where gRPC clients connect.")
    peer_addr: Address = _node(HostPort("127.0.0.1", 7401), "Where the other nodes connect; never for clients.")
    admin_addr: Address = _node(HostPort("127.0.0.1", 7402), "Where /metrics, /livez, /readyz and /startupz answer.")
    read_mode: ReadMode = _node(
        "linearizable",
        "What a read promises: linearizable = the latest write of anybody; lease = the same, as long as no clock runs "
        "a seventh faster than another, and without asking a majority while all nodes have this mode and the same "
        "election_timeout_ms; stale = what this node has applied. With one voter all three are linearizable.",
    )
    shutdown_delay_seconds: Whole = _node(
        0,
        "How long a stop serves on while /readyz says no, for load balancers to look elsewhere first.",
        unit="seconds",
        ge=0,
        le=300,
    )
    shutdown_timeout_seconds: Whole = _node(
        10,
        "How long a stop waits for running commands before it closes connections.",
        unit="seconds",
        mutable=True,
        aliases=("shutdown-timeout",),
        ge=0,
        le=3600,
    )

    initial_cluster: Members = _cluster(
        (),
        "Members of a new cluster, this node among them, as name=host:port,… with their peer addresses; the same on "
        "each. Empty means a cluster of this node alone. Who the members are is read from it when the data directory "
        "is empty, the address of this node at every start.",
    )
    join: Addresses = _cluster(
        (),
        "Peer addresses of members of a running cluster that this node joins, as host:port,…. Read when the data "
        "directory is empty or damaged.",
    )
    advertise_peer_addr: OptionalAddress = _cluster(
        None, "Where the other nodes reach this one, if that is not peer_addr. A host name is resolved at each connect."
    )
    advertise_resp_addr: OptionalAddress = _cluster(
        None, "Where Redis clients reach this node, if that is not resp_addr; CLUSTER NODES and the like tell it."
    )
    advertise_grpc_addr: OptionalAddress = _cluster(
        None, "Where gRPC clients reach this node, if that is not grpc_addr; `redan ctl` follows it to the leader."
    )
    heartbeat_interval_ms: Whole = _cluster(
        100, "Time between two signs of life of the leader.", unit="milliseconds", ge=10, le=10_000
    )
    election_timeout_ms: Whole = _cluster(
        400,
        "Silence of the leader after which a node stands for election, at the earliest; at the latest after half as "
        "much again. The same on each node.",
        unit="milliseconds",
        ge=50,
        le=60_000,
    )
    leader_wait_ms: Whole = _cluster(
        2000, "How long a command waits while no leader is known, before it is refused. Below what clients wait for "
        "an answer, or they send it again.", unit="milliseconds", mutable=True, ge=0, le=600_000,
    )  # fmt: skip
    outcome_timeout_ms: Whole = _cluster(
        2000, "How long a write waits to learn what became of it after its leader was lost, before the answer is "
        "UNKNOWN. Below what clients wait for an answer, or they send it again.", unit="milliseconds", ge=100,
        le=600_000,
    )  # fmt: skip
    snapshot_transfer_bytes_per_second: Size = _cluster(
        100 * MB, "Most bytes a second of a snapshot that is sent to another node; 0 = no limit.", unit="bytes", ge=0
    )
    cluster_secret: Secret = _cluster(
        "",
        f"Secret that nodes prove to each other, the same on each, {SECRET_CHARACTERS_MIN} characters or more; empty = "
        "none. It keeps out who does not know it, and encrypts nothing: that is what peer_tls_… are for.",
        secret=True,
    )
    peer_tls_cert: OptionalFile = _cluster(
        None, "Certificate (PEM) of this node for the other nodes; with peer_tls_key and peer_tls_ca, or none of them."
    )
    peer_tls_key: OptionalFile = _cluster(None, "Private key (PEM) of that certificate.")
    peer_tls_ca: OptionalFile = _cluster(
        None, "Authorities (PEM) that certificates of the other nodes are checked against, in both directions."
    )

    fsync: FsyncMode = _disk(
        "always",
        "When a write is on disk: always = before it is acknowledged; interval and os acknowledge earlier, and a power "
        "failure can lose what they acknowledged.",
    )
    fsync_interval_ms: Whole = _disk(
        1000, "Time between two syncs with fsync = interval.", unit="milliseconds", ge=1, le=60_000
    )
    wal_segment_bytes: Size = _disk(16 * MB, "Size of one file of the log.", unit="bytes", ge=64 * KB, le=GB)
    snapshot_every_bytes: Size = _disk(
        256 * MB, "Take a snapshot when the log grew by this much; 0 = never for this reason.", unit="bytes", ge=0
    )
    snapshot_every_seconds: Whole = _disk(
        3600, "Take a snapshot when the last is this old and keys have changed; 0 = never for this reason.",
        unit="seconds", ge=0, le=31_536_000,
    )  # fmt: skip

    databases: Whole = _memory(16, "Number of databases that SELECT can choose from.", ge=1, le=1024)
    maxmemory: Size = _memory(
        0, "Memory for keys and values at which maxmemory_policy starts to act; 0 = no limit.",
        unit="bytes", mutable=True, ge=0,
    )  # fmt: skip
    maxmemory_policy: EvictionPolicy = _memory(
        "noeviction",
        "What gives way at maxmemory: nothing (writes are refused), or keys chosen this way.",
        mutable=True,
    )
    maxmemory_samples: Whole = _memory(
        5, "Keys looked at for each key that is evicted; more is more exact and slower.", mutable=True, ge=1, le=64
    )
    lfu_log_factor: Whole = _memory(
        10, "How slowly the counter of a key's use rises under an lfu policy.", mutable=True, ge=0, le=2**31 - 1
    )
    lfu_decay_time: Whole = _memory(
        1, "Minutes without use after which that counter falls by one; 0 = it never falls.",
        unit="minutes", mutable=True, ge=0, le=2**31 - 1,
    )  # fmt: skip

    maxclients: Whole = _clients(10_000, "Most Redis connections at one time.", mutable=True, ge=1, le=1_000_000)
    timeout: Whole = _clients(
        0, "Close a connection that was idle for so long; 0 = never.", unit="seconds", mutable=True, ge=0, le=2**31 - 1
    )
    tcp_keepalive: Whole = _clients(
        300, "Idle time before TCP keep-alive probes are sent; 0 = no probes.", unit="seconds", mutable=True,
        ge=0, le=32_767,
    )  # fmt: skip
    key_bytes_max: Size = _clients(64 * KB, "Longest key.", unit="bytes", mutable=True, ge=1, le=512 * MB)
    value_bytes_max: Size = _clients(
        16 * MB, "Longest value that a command may make, and longest argument.", unit="bytes", mutable=True,
        aliases=("proto-max-bulk-len",), ge=KB, le=512 * MB,
    )  # fmt: skip
    query_buffer_bytes_max: Size = _clients(
        GB, "Most bytes received and not yet executed, of one connection; beyond, it is closed.", unit="bytes",
        mutable=True, aliases=("client-query-buffer-limit",), ge=MB, le=16 * GB,
    )  # fmt: skip
    output_buffer_bytes_max: Size = _clients(
        256 * MB, "Most bytes of replies not yet read, of one connection; beyond, it is closed.", unit="bytes",
        mutable=True, ge=MB, le=16 * GB,
    )  # fmt: skip
    requirepass: Secret = _clients("", "Password that clients must give; empty = none.", mutable=True, secret=True)
    protected_mode: Switch = _clients(
        True, "Whether only callers on this machine are served while there is no password.", mutable=True
    )
    enable_debug_command: DebugMode = _clients(
        "no", "Who may use DEBUG: no = nobody, local = connections from this machine, yes = everybody."
    )
    grpc_max_message_bytes: Size = _clients(
        64 * MB, "Longest gRPC message in each direction.", unit="bytes", ge=64 * KB, le=2**31 - 1
    )
    grpc_reflection: Switch = _clients(True, "Whether gRPC clients can list services and types (reflection).")

    slowlog_log_slower_than: Whole = _watching(
        10_000, "Commands that run longer go to the slow log; 0 = all, -1 = none.", unit="microseconds", mutable=True,
        ge=-1, le=2**63 - 1,
    )  # fmt: skip
    slowlog_max_len: Whole = _watching(
        128, "Entries that the slow log keeps.", unit="entries", mutable=True, ge=0, le=1_000_000
    )
    latency_tracking: Switch = _watching(True, "Whether latencies are counted by command.", mutable=True)
    latency_monitor_threshold: Whole = _watching(
        0, "Events that take at least this long are kept for LATENCY; 0 = none.", unit="milliseconds", mutable=True,
        ge=0, le=2**63 - 1,
    )  # fmt: skip
    log_level: LogLevel = _watching("info", "Least level that is logged.", mutable=True)
    log_format: LogFormat = _watching("auto", "Form of the log; auto = text on a terminal, JSON elsewhere.")

    @model_validator(mode="after")
    def _check_settings_together(self) -> Self:
        """Refuse settings that are lawful alone and cannot hold together."""
        self._check_cluster()
        if self.key_bytes_max > self.value_bytes_max:
            raise ValueError(
                f"key_bytes_max ({self.key_bytes_max}) is more than value_bytes_max ({self.value_bytes_max}), which "
                "bounds every argument"
            )
        for buffer in ("query_buffer_bytes_max", "output_buffer_bytes_max"):
            if getattr(self, buffer) < self.value_bytes_max:
                raise ValueError(
                    f"{buffer} ({getattr(self, buffer)}) is less than value_bytes_max ({self.value_bytes_max}): the "
                    "longest value would not fit"
                )
        return self

    def _check_cluster(self) -> None:
        names = [member.name for member in self.initial_cluster]
        if len(names) > CLUSTER_MEMBERS_MAX:
            raise ValueError(
                f"initial_cluster names {len(names)} members, and a cluster has at most {CLUSTER_MEMBERS_MAX}"
            )
        if names and self.name not in names:
            raise ValueError(f"initial_cluster names {', '.join(names)}, and this node's name is '{self.name}'")
        if self.join and len(names) > 1:
            raise ValueError("join and initial_cluster: a node is a first member of a cluster or joins it later")
        if self.join and self.peer_addr.host in ANY_HOSTS and self.advertise_peer_addr is None:
            raise ValueError(
                f"join: the members would be told that this node is at {self.peer_addr}; set advertise_peer_addr"
            )
        if self.election_timeout_ms < 2 * self.heartbeat_interval_ms:
            raise ValueError(
                f"election_timeout_ms ({self.election_timeout_ms}) is less than twice heartbeat_interval_ms "
                f"({self.heartbeat_interval_ms}): one late heartbeat would be an election"
            )
        if 0 < len(self.cluster_secret) < SECRET_CHARACTERS_MIN:
            raise ValueError(
                f"cluster_secret has {len(self.cluster_secret)} characters, and {SECRET_CHARACTERS_MIN} are the least"
            )
        if len({self.peer_tls_cert is None, self.peer_tls_key is None, self.peer_tls_ca is None}) > 1:
            raise ValueError("peer_tls_cert, peer_tls_key and peer_tls_ca are set together, or none of them")

    def change(self, changes: Mapping[str, object]) -> None:
        """Set mutable fields, all of them or none; raise pydantic.ValidationError when the outcome would be unlawful.

        Readers hold this object and not copies of its values, so a change reaches them at their next look.
        """
        assert changes.keys() <= MUTABLE_FIELDS, f"not mutable: {changes.keys() - MUTABLE_FIELDS}"
        changed = Config.model_validate({**self.__dict__, **changes})
        self.__dict__.update(changed.__dict__)

    @property
    def members(self) -> tuple[ClusterMember, ...]:
        """Members of the first configuration; this node alone where none are named."""
        return self.initial_cluster or (ClusterMember(self.name, self.advertise_peer_addr or self.peer_addr),)


SETTINGS: Final[Mapping[str, Setting]] = {
    field: row_of(field, declared) for field, declared in Config.model_fields.items()
}
MUTABLE_FIELDS: Final = frozenset(setting.field for setting in SETTINGS.values() if setting.mutable)
