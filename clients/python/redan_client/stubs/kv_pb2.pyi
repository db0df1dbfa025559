# mypy: disable-error-code="type-arg"
import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SetCondition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SET_CONDITION_UNSPECIFIED: _ClassVar[SetCondition]
    SET_CONDITION_IF_ABSENT: _ClassVar[SetCondition]
    SET_CONDITION_IF_PRESENT: _ClassVar[SetCondition]

class ExpireCondition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPIRE_CONDITION_UNSPECIFIED: _ClassVar[ExpireCondition]
    EXPIRE_CONDITION_IF_NONE: _ClassVar[ExpireCondition]
    EXPIRE_CONDITION_IF_SOME: _ClassVar[ExpireCondition]
    EXPIRE_CONDITION_IF_LATER: _ClassVar[ExpireCondition]
    EXPIRE_CONDITION_IF_SOONER: _ClassVar[ExpireCondition]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
    OUTCOME_NOT_APPLIED: _ClassVar[Outcome]
    OUTCOME_UNKNOWN: _ClassVar[Outcome]
SET_CONDITION_UNSPECIFIED: SetCondition
SET_CONDITION_IF_ABSENT: SetCondition
SET_CONDITION_IF_PRESENT: SetCondition
EXPIRE_CONDITION_UNSPECIFIED: ExpireCondition
EXPIRE_CONDITION_IF_NONE: ExpireCondition
EXPIRE_CONDITION_IF_SOME: ExpireCondition
EXPIRE_CONDITION_IF_LATER: ExpireCondition
EXPIRE_CONDITION_IF_SOONER: ExpireCondition
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_REJECTED: Outcome
OUTCOME_NOT_APPLIED: Outcome
OUTCOME_UNKNOWN: Outcome

class ResponseHeader(_message.Message):
    __slots__ = ("cluster_id", "node", "term", "index")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    node: str
    term: int
    index: int
    def __init__(self, cluster_id: _Optional[str] = ..., node: _Optional[str] = ..., term: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("database", "key")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    database: int
    key: bytes
    def __init__(self, database: _Optional[int] = ..., key: _Optional[bytes] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("header", "value")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    value: bytes
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., value: _Optional[bytes] = ...) -> None: ...

class SetRequest(_message.Message):
    __slots__ = ("database", "key", "value", "ttl", "expire_at", "keep_ttl", "condition", "return_previous", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_AT_FIELD_NUMBER: _ClassVar[int]
    KEEP_TTL_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    RETURN_PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: int
    key: bytes
    value: bytes
    ttl: _duration_pb2.Duration
    expire_at: _timestamp_pb2.Timestamp
    keep_ttl: bool
    condition: SetCondition
    return_previous: bool
    request_id: str
    def __init__(self, database: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expire_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., keep_ttl: _Optional[bool] = ..., condition: _Optional[_Union[SetCondition, str]] = ..., return_previous: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class SetResponse(_message.Message):
    __slots__ = ("header", "applied", "previous")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    applied: bool
    previous: bytes
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., applied: _Optional[bool] = ..., previous: _Optional[bytes] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("database", "keys", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: int
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    request_id: str
    def __init__(self, database: _Optional[int] = ..., keys: _Optional[_Iterable[bytes]] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("header", "deleted")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    deleted: int
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., deleted: _Optional[int] = ...) -> None: ...

class ExistsRequest(_message.Message):
    __slots__ = ("database", "keys")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    database: int
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, database: _Optional[int] = ..., keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ExistsResponse(_message.Message):
    __slots__ = ("header", "count")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    count: int
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class ExpireRequest(_message.Message):
    __slots__ = ("database", "key", "ttl", "expire_at", "persist", "condition", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_AT_FIELD_NUMBER: _ClassVar[int]
    PERSIST_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: int
    key: bytes
    ttl: _duration_pb2.Duration
    expire_at: _timestamp_pb2.Timestamp
    persist: bool
    condition: ExpireCondition
    request_id: str
    def __init__(self, database: _Optional[int] = ..., key: _Optional[bytes] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expire_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., persist: _Optional[bool] = ..., condition: _Optional[_Union[ExpireCondition, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExpireResponse(_message.Message):
    __slots__ = ("header", "applied")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    applied: bool
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., applied: _Optional[bool] = ...) -> None: ...

class TtlRequest(_message.Message):
    __slots__ = ("database", "key")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    database: int
    key: bytes
    def __init__(self, database: _Optional[int] = ..., key: _Optional[bytes] = ...) -> None: ...

class TtlResponse(_message.Message):
    __slots__ = ("header", "exists", "ttl")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    exists: bool
    ttl: _duration_pb2.Duration
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., exists: _Optional[bool] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class IncrementRequest(_message.Message):
    __slots__ = ("database", "key", "delta", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: int
    key: bytes
    delta: int
    request_id: str
    def __init__(self, database: _Optional[int] = ..., key: _Optional[bytes] = ..., delta: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class IncrementResponse(_message.Message):
    __slots__ = ("header", "value")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    value: int
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., value: _Optional[int] = ...) -> None: ...

class MultiGetRequest(_message.Message):
    __slots__ = ("database", "keys")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    database: int
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, database: _Optional[int] = ..., keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Lookup(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    def __init__(self, value: _Optional[bytes] = ...) -> None: ...

class MultiGetResponse(_message.Message):
    __slots__ = ("header", "lookups")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LOOKUPS_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    lookups: _containers.RepeatedCompositeFieldContainer[Lookup]
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., lookups: _Optional[_Iterable[_Union[Lookup, _Mapping]]] = ...) -> None: ...

class KeyValue(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class MultiSetRequest(_message.Message):
    __slots__ = ("database", "entries", "if_all_absent", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    IF_ALL_ABSENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: int
    entries: _containers.RepeatedCompositeFieldContainer[KeyValue]
    if_all_absent: bool
    request_id: str
    def __init__(self, database: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ..., if_all_absent: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class MultiSetResponse(_message.Message):
    __slots__ = ("header", "applied")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    applied: bool
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., applied: _Optional[bool] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("database", "match", "page_size", "page_token", "with_values")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_VALUES_FIELD_NUMBER: _ClassVar[int]
    database: int
    match: bytes
    page_size: int
    page_token: str
    with_values: bool
    def __init__(self, database: _Optional[int] = ..., match: _Optional[bytes] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., with_values: _Optional[bool] = ...) -> None: ...

class ScanEntry(_message.Message):
    __slots__ = ("key", "value", "value_omitted")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUE_OMITTED_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    value_omitted: bool
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., value_omitted: _Optional[bool] = ...) -> None: ...

class ScanResponse(_message.Message):
    __slots__ = ("header", "entries", "next_page_token")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    entries: _containers.RepeatedCompositeFieldContainer[ScanEntry]
    next_page_token: str
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[ScanEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ScanStreamRequest(_message.Message):
    __slots__ = ("database", "match", "page_size", "page_token", "with_values")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_VALUES_FIELD_NUMBER: _ClassVar[int]
    database: int
    match: bytes
    page_size: int
    page_token: str
    with_values: bool
    def __init__(self, database: _Optional[int] = ..., match: _Optional[bytes] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., with_values: _Optional[bool] = ...) -> None: ...

class ScanStreamResponse(_message.Message):
    __slots__ = ("header", "entries", "next_page_token")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    entries: _containers.RepeatedCompositeFieldContainer[ScanEntry]
    next_page_token: str
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[ScanEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("args", "request_id")
    ARGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedScalarFieldContainer[bytes]
    request_id: str
    def __init__(self, args: _Optional[_Iterable[bytes]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("database", "args", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: int
    args: _containers.RepeatedScalarFieldContainer[bytes]
    request_id: str
    def __init__(self, database: _Optional[int] = ..., args: _Optional[_Iterable[bytes]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("header", "value")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    value: Value
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class PipelineRequest(_message.Message):
    __slots__ = ("batch_id", "database", "commands")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    database: int
    commands: _containers.RepeatedCompositeFieldContainer[Command]
    def __init__(self, batch_id: _Optional[int] = ..., database: _Optional[int] = ..., commands: _Optional[_Iterable[_Union[Command, _Mapping]]] = ...) -> None: ...

class PipelineResponse(_message.Message):
    __slots__ = ("header", "batch_id", "values")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    header: ResponseHeader
    batch_id: int
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, header: _Optional[_Union[ResponseHeader, _Mapping]] = ..., batch_id: _Optional[int] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("null", "status", "bulk", "integer", "double", "boolean", "array", "set", "map", "error", "verbatim")
    NULL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VERBATIM_FIELD_NUMBER: _ClassVar[int]
    null: _struct_pb2.NullValue
    status: str
    bulk: bytes
    integer: int
    double: float
    boolean: bool
    array: ArrayValue
    set: ArrayValue
    map: MapValue
    error: CommandError
    verbatim: Verbatim
    def __init__(self, null: _Optional[_Union[_struct_pb2.NullValue, str]] = ..., status: _Optional[str] = ..., bulk: _Optional[bytes] = ..., integer: _Optional[int] = ..., double: _Optional[float] = ..., boolean: _Optional[bool] = ..., array: _Optional[_Union[ArrayValue, _Mapping]] = ..., set: _Optional[_Union[ArrayValue, _Mapping]] = ..., map: _Optional[_Union[MapValue, _Mapping]] = ..., error: _Optional[_Union[CommandError, _Mapping]] = ..., verbatim: _Optional[_Union[Verbatim, _Mapping]] = ...) -> None: ...

class ArrayValue(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class MapValue(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[MapEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[MapEntry, _Mapping]]] = ...) -> None: ...

class MapEntry(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: Value
    value: Value
    def __init__(self, key: _Optional[_Union[Value, _Mapping]] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Verbatim(_message.Message):
    __slots__ = ("format", "text")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    format: str
    text: bytes
    def __init__(self, format: _Optional[str] = ..., text: _Optional[bytes] = ...) -> None: ...

class CommandError(_message.Message):
    __slots__ = ("code", "reason", "outcome", "prefix", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    outcome: Outcome
    prefix: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., prefix: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
