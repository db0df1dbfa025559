# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_KIND_UNSPECIFIED: _ClassVar[EntryKind]
    ENTRY_KIND_NO_OP: _ClassVar[EntryKind]
    ENTRY_KIND_COMMANDS: _ClassVar[EntryKind]
    ENTRY_KIND_CONFIGURATION: _ClassVar[EntryKind]
ENTRY_KIND_UNSPECIFIED: EntryKind
ENTRY_KIND_NO_OP: EntryKind
ENTRY_KIND_COMMANDS: EntryKind
ENTRY_KIND_CONFIGURATION: EntryKind

class ExchangeRequest(_message.Message):
    __slots__ = ("greeting", "messages", "state_digest", "payloads")
    GREETING_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    state_digest: StateDigest
    payloads: bytes
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., state_digest: _Optional[_Union[StateDigest, _Mapping]] = ..., payloads: _Optional[bytes] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("greeting",)
    GREETING_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("cluster_id", "sender", "receiver", "feature_level", "incarnation", "peer_address", "resp_address", "grpc_address", "in_return", "read_mode", "election_timeout_ms")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RESP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IN_RETURN_FIELD_NUMBER: _ClassVar[int]
    READ_MODE_FIELD_NUMBER: _ClassVar[int]
    ELECTION_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    sender: str
    receiver: str
    feature_level: int
    incarnation: int
    peer_address: str
    resp_address: str
    grpc_address: str
    in_return: bool
    read_mode: str
    election_timeout_ms: int
    def __init__(self, cluster_id: _Optional[str] = ..., sender: _Optional[str] = ..., receiver: _Optional[str] = ..., feature_level: _Optional[int] = ..., incarnation: _Optional[int] = ..., peer_address: _Optional[str] = ..., resp_address: _Optional[str] = ..., grpc_address: _Optional[str] = ..., in_return: _Optional[bool] = ..., read_mode: _Optional[str] = ..., election_timeout_ms: _Optional[int] = ...) -> None: ...

class StateDigest(_message.Message):
    __slots__ = ("index", "digest")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    index: int
    digest: int
    def __init__(self, index: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("group", "term", "append_entries", "append_entries_reply", "request_vote", "request_vote_reply", "timeout_now", "heartbeat", "heartbeat_reply")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_REPLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_REPLY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_REPLY_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    append_entries: AppendEntries
    append_entries_reply: AppendEntriesReply
    request_vote: RequestVote
    request_vote_reply: RequestVoteReply
    timeout_now: TimeoutNow
    heartbeat: Heartbeat
    heartbeat_reply: HeartbeatReply
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., append_entries: _Optional[_Union[AppendEntries, _Mapping]] = ..., append_entries_reply: _Optional[_Union[AppendEntriesReply, _Mapping]] = ..., request_vote: _Optional[_Union[RequestVote, _Mapping]] = ..., request_vote_reply: _Optional[_Union[RequestVoteReply, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., heartbeat_reply: _Optional[_Union[HeartbeatReply, _Mapping]] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("previous_index", "previous_term", "commit_index", "entries", "read_round", "lost_seen")
    PREVIOUS_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_TERM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    READ_ROUND_FIELD_NUMBER: _ClassVar[int]
    LOST_SEEN_FIELD_NUMBER: _ClassVar[int]
    previous_index: int
    previous_term: int
    commit_index: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    read_round: int
    lost_seen: bool
    def __init__(self, previous_index: _Optional[int] = ..., previous_term: _Optional[int] = ..., commit_index: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., read_round: _Optional[int] = ..., lost_seen: _Optional[bool] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("term", "kind", "stamp_ms", "payload_bytes")
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STAMP_MS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    term: int
    kind: EntryKind
    stamp_ms: int
    payload_bytes: int
    def __init__(self, term: _Optional[int] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., stamp_ms: _Optional[int] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class AppendEntriesReply(_message.Message):
    __slots__ = ("success", "index", "hint_index", "hint_term", "read_round", "lost")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_TERM_FIELD_NUMBER: _ClassVar[int]
    READ_ROUND_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    success: bool
    index: int
    hint_index: int
    hint_term: int
    read_round: int
    lost: bool
    def __init__(self, success: _Optional[bool] = ..., index: _Optional[int] = ..., hint_index: _Optional[int] = ..., hint_term: _Optional[int] = ..., read_round: _Optional[int] = ..., lost: _Optional[bool] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("commit_index", "read_round", "leader_commit")
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    READ_ROUND_FIELD_NUMBER: _ClassVar[int]
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit_index: int
    read_round: int
    leader_commit: int
    def __init__(self, commit_index: _Optional[int] = ..., read_round: _Optional[int] = ..., leader_commit: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("read_round",)
    READ_ROUND_FIELD_NUMBER: _ClassVar[int]
    read_round: int
    def __init__(self, read_round: _Optional[int] = ...) -> None: ...

class RequestVote(_message.Message):
    __slots__ = ("last_index", "last_term", "pre_vote", "leadership_transfer")
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    LEADERSHIP_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    last_index: int
    last_term: int
    pre_vote: bool
    leadership_transfer: bool
    def __init__(self, last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., pre_vote: _Optional[bool] = ..., leadership_transfer: _Optional[bool] = ...) -> None: ...

class RequestVoteReply(_message.Message):
    __slots__ = ("granted", "pre_vote", "commit_index", "commit_term")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TERM_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    pre_vote: bool
    commit_index: int
    commit_term: int
    def __init__(self, granted: _Optional[bool] = ..., pre_vote: _Optional[bool] = ..., commit_index: _Optional[int] = ..., commit_term: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TransferSnapshotRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: SnapshotHeader
    chunk: SnapshotChunk
    def __init__(self, header: _Optional[_Union[SnapshotHeader, _Mapping]] = ..., chunk: _Optional[_Union[SnapshotChunk, _Mapping]] = ...) -> None: ...

class SnapshotHeader(_message.Message):
    __slots__ = ("greeting", "group", "term", "last_index", "last_term", "size_bytes", "transfer_id", "configuration")
    GREETING_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    group: int
    term: int
    last_index: int
    last_term: int
    size_bytes: int
    transfer_id: int
    configuration: bytes
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ..., group: _Optional[int] = ..., term: _Optional[int] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., size_bytes: _Optional[int] = ..., transfer_id: _Optional[int] = ..., configuration: _Optional[bytes] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("offset", "content", "crc32c")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    offset: int
    content: bytes
    crc32c: int
    def __init__(self, offset: _Optional[int] = ..., content: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class TransferSnapshotResponse(_message.Message):
    __slots__ = ("offset", "installed", "refusal")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    offset: int
    installed: bool
    refusal: str
    def __init__(self, offset: _Optional[int] = ..., installed: _Optional[bool] = ..., refusal: _Optional[str] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("greeting", "term", "calls")
    GREETING_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    term: int
    calls: _containers.RepeatedCompositeFieldContainer[ForwardCall]
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ..., term: _Optional[int] = ..., calls: _Optional[_Iterable[_Union[ForwardCall, _Mapping]]] = ...) -> None: ...

class ForwardCall(_message.Message):
    __slots__ = ("call_id", "session_id", "db", "commands", "flags")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DB_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    session_id: int
    db: int
    commands: bytes
    flags: int
    def __init__(self, call_id: _Optional[int] = ..., session_id: _Optional[int] = ..., db: _Optional[int] = ..., commands: _Optional[bytes] = ..., flags: _Optional[int] = ...) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ("greeting", "replies", "term", "refused")
    GREETING_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    replies: _containers.RepeatedCompositeFieldContainer[ForwardReply]
    term: int
    refused: bool
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ..., replies: _Optional[_Iterable[_Union[ForwardReply, _Mapping]]] = ..., term: _Optional[int] = ..., refused: _Optional[bool] = ...) -> None: ...

class ForwardReply(_message.Message):
    __slots__ = ("call_id", "replies", "not_applied")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    NOT_APPLIED_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    replies: bytes
    not_applied: bool
    def __init__(self, call_id: _Optional[int] = ..., replies: _Optional[bytes] = ..., not_applied: _Optional[bool] = ...) -> None: ...

class IntroduceRequest(_message.Message):
    __slots__ = ("cluster_id", "name", "peer_address")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    name: str
    peer_address: str
    def __init__(self, cluster_id: _Optional[str] = ..., name: _Optional[str] = ..., peer_address: _Optional[str] = ...) -> None: ...

class IntroduceResponse(_message.Message):
    __slots__ = ("cluster_id", "name", "is_fresh", "fresh_cluster_id", "term", "commit_index", "leader", "configuration", "resp_address", "grpc_address", "incarnation", "founders")
    class FoundersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_FRESH_FIELD_NUMBER: _ClassVar[int]
    FRESH_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    RESP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    FOUNDERS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    name: str
    is_fresh: bool
    fresh_cluster_id: str
    term: int
    commit_index: int
    leader: str
    configuration: bytes
    resp_address: str
    grpc_address: str
    incarnation: int
    founders: _containers.ScalarMap[str, str]
    def __init__(self, cluster_id: _Optional[str] = ..., name: _Optional[str] = ..., is_fresh: _Optional[bool] = ..., fresh_cluster_id: _Optional[str] = ..., term: _Optional[int] = ..., commit_index: _Optional[int] = ..., leader: _Optional[str] = ..., configuration: _Optional[bytes] = ..., resp_address: _Optional[str] = ..., grpc_address: _Optional[str] = ..., incarnation: _Optional[int] = ..., founders: _Optional[_Mapping[str, str]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("cluster_id", "name", "peer_address")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    name: str
    peer_address: str
    def __init__(self, cluster_id: _Optional[str] = ..., name: _Optional[str] = ..., peer_address: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("accepted", "cluster_id", "leader", "leader_address", "configuration")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    cluster_id: str
    leader: str
    leader_address: str
    configuration: bytes
    def __init__(self, accepted: _Optional[bool] = ..., cluster_id: _Optional[str] = ..., leader: _Optional[str] = ..., leader_address: _Optional[str] = ..., configuration: _Optional[bytes] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ("name", "nonce")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    nonce: bytes
    def __init__(self, name: _Optional[str] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class ChallengeResponse(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ...) -> None: ...
