"""What to say to two servers that must answer alike: a Hypothesis strategy for the arguments of every data command.

Keys and values come from small alphabets, so that commands meet; about a tenth of all arguments is wrong in some way.
Times are either far from now or long past: a reply that depends on the millisecond could not be compared. For the same
reason GT and LT only meet deadlines that are absolute: two relative ones may differ by the time between them only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Words = SearchStrategy[list[bytes]]
Word = SearchStrategy[bytes]

KEYS = [b"a", b"b", b"c", b"{a}1", b"key:with:colons", b""]
DATABASES = (0, 1)

TEXTS = [
    b"", b"0", b"7", b"10", b"-5", b"-0", b"01", b"+1", b" 1", b"1 ", b"9223372036854775807", b"-9223372036854775808",
    b"9223372036854775808", b"99999999999999999999", b"3.0", b"1.5e3", b"0.1", b"-.25", b"0x1p-3", b"inf", b"nan",
    b"hello", b"Hello World", b"\x00", b"\xff", b"\xff\xff\xf0", b"\x00\x00\x10", b"a\r\nb\x00c", b"x" * 44, b"x" * 45,
    b"ohmytext", b"mynewtext", b"\xff" * 70,
]  # fmt: skip
INTEGERS = [0, 1, -1, 2, 3, 5, 7, 8, 10, 44, 63, 64, 65, 100, 255, 256, -2, -3, -100, 1000]
HUGE = [9223372036854775807, -9223372036854775808, 9223372036854775806, 4294967295, 4294967296, 2147483648]
NOT_INTEGERS = [b"", b"abc", b"1.0", b"+1", b"01", b" 1", b"9223372036854775808", b"1\x00", b"-"]
FLOATS = [
    b"0.1", b"0.2", b"-0.3", b"1", b"3.0e3", b"1e17", b"-1e-17", b"123456789.123456789", b"1e20", b"4e-19", b"inf",
    b"-inf", b"nan", b"", b"abc", b"1e4932", b"1e5000", b"1e-5000", b".5", b"5.", b".", b"0x10", b"1e", b" 1", b"1_0",
    b"0.333333333333333333333", b"9007199254740993", b"18446744073709551617",
]  # fmt: skip

LONG_TTL_S = range(100, 10_000)
FUTURE_S = [4_000_000_000, 4_000_000_001, 4_000_000_002, 5_000_000_000]
PAST_S = [1, 1_000, 1_000_000_000]
BAD_TTL = [b"0", b"-1", b"abc", b"", b"1.5", b"9223372036854775807", b"9223372036854775", b"-9223372036854775808"]

FIELD_TYPES = [b"u1", b"u2", b"u8", b"i8", b"u13", b"i16", b"i5", b"u63", b"i64", b"i1", b"u32"]
BAD_FIELD_TYPES = [b"u64", b"i65", b"u0", b"x8", b"", b"u", b"U8", b"i", b"u08", b"u-1"]

# DUMP payloads of redis-server 7.0: an integer, a short text, a compressed one; then broken ones.
PAYLOADS = [
    bytes.fromhex(text)
    for text in (
        "00c07b0a0048e253e1007a67b9",  # the integer 123
        "000568656c6c6f0a006372df766534200a",  # hello
        "00c3094064017878e057000178780a005db7f663bb08625f",  # 100 times x
        "00c2701101000a0001a408fe953095a5",  # the integer 70000
        "000568656c6c6f0a006372df766534200b",  # a wrong checksum
        "000568656c6c6f63006372df766534200a",  # a version of the future
        "00",
        "",
    )
]


def word(*choices: bytes) -> Word:
    """One of some words, sometimes in another letter case."""
    return st.sampled_from([*choices, *(choice.lower() for choice in choices), *(choice.title() for choice in choices)])


def numbers(choices: Iterable[int]) -> Word:
    return st.sampled_from([b"%d" % choice for choice in choices])


def rarely(strange: Word, usual: Word) -> Word:
    """Mostly the usual, about one time in ten the strange."""
    return st.integers(0, 9).flatmap(lambda roll: strange if roll == 9 else usual)


KEY: Word = st.sampled_from(KEYS)
TEXT: Word = st.sampled_from(TEXTS) | st.binary(max_size=12) | st.text("abc", max_size=12).map(str.encode)
INTEGER: Word = rarely(st.sampled_from(NOT_INTEGERS) | numbers(HUGE), numbers(INTEGERS))
FLOAT: Word = st.sampled_from(FLOATS) | st.floats(width=32).map(lambda number: repr(number).encode())
BIT: Word = rarely(st.sampled_from([b"2", b"-1", b"abc", b""]), st.sampled_from([b"0", b"1"]))
BIT_OFFSET: Word = rarely(
    st.sampled_from([b"-1", b"abc", b"4294967296", b"9223372036854775807", b"#1", b""]),
    numbers([0, 1, 6, 7, 8, 9, 31, 63, 64, 100, 511, 1000]),
)
LONG_S: Word = numbers(LONG_TTL_S[::97])
LONG_MS: Word = numbers(second * 1000 + 7 for second in LONG_TTL_S[::97])
AT_S: Word = numbers([*FUTURE_S, *PAST_S])
AT_MS: Word = numbers(second * 1000 + 1 for second in [*FUTURE_S, *PAST_S])


def sequence(*parts: Word | Words) -> Words:
    """All parts in a row."""
    return st.tuples(*parts).map(_flat)


def some(part: Words | Word, at_most: int, at_least: int = 0) -> Words:
    """Some repetitions of a part."""
    return st.lists(part, min_size=at_least, max_size=at_most).map(_flat)


def _flat(parts: Iterable[Any]) -> list[bytes]:
    words: list[bytes] = []
    for part in parts:
        words += part if isinstance(part, list) else [part]
    return words


NOTHING: Words = st.just([])


def maybe(part: Words | Word) -> Words:
    return some(part, 1)


def ttl_of(usual: Word) -> Word:
    return rarely(st.sampled_from(BAD_TTL), usual)


EXPIRY: Words = st.one_of(
    sequence(word(b"EX"), ttl_of(LONG_S)),
    sequence(word(b"PX"), ttl_of(LONG_MS)),
    sequence(word(b"EXAT"), ttl_of(AT_S)),
    sequence(word(b"PXAT"), ttl_of(AT_MS)),
)
SET_OPTION: Words = st.one_of(
    sequence(word(b"NX")), sequence(word(b"XX")), sequence(word(b"GET")), sequence(word(b"KEEPTTL")), EXPIRY
)
GETEX_OPTION: Words = st.one_of(EXPIRY, sequence(word(b"PERSIST")))
CONDITIONS: Words = some(word(b"NX", b"XX", b"GT", b"LT"), 2)
NX_OR_XX: Words = st.one_of(
    NOTHING, NOTHING, sequence(word(b"NX")), sequence(word(b"XX")), sequence(word(b"NX", b"GT"))
)

FIELD_TYPE: Word = rarely(st.sampled_from(BAD_FIELD_TYPES), st.sampled_from(FIELD_TYPES))
FIELD_OFFSET: Word = rarely(
    st.sampled_from([b"-1", b"#-1", b"#", b"abc", b"4294967296", b"#4294967295", b""]),
    st.sampled_from([b"0", b"1", b"5", b"8", b"62", b"100", b"#0", b"#1", b"#3"]),
)
FIELD_NUMBER: Word = st.one_of(INTEGER, numbers(HUGE), numbers([127, 128, -128, -129, 255, 256, 8191, 8192]))
FIELD_GET: Words = sequence(word(b"GET"), FIELD_TYPE, FIELD_OFFSET)
FIELD_CHANGE: Words = st.one_of(
    sequence(word(b"SET"), FIELD_TYPE, FIELD_OFFSET, FIELD_NUMBER),
    sequence(word(b"INCRBY"), FIELD_TYPE, FIELD_OFFSET, FIELD_NUMBER),
    sequence(word(b"OVERFLOW"), word(b"WRAP", b"SAT", b"FAIL", b"NO")),
)
RANGE_UNIT: Word = word(b"BIT", b"BYTE", b"BITS")
LCS_OPTION: Words = st.one_of(
    sequence(word(b"LEN")), sequence(word(b"IDX")), sequence(word(b"WITHMATCHLEN")),
    sequence(word(b"MINMATCHLEN"), INTEGER),
)  # fmt: skip
DATABASE: Word = rarely(st.sampled_from([b"-1", b"16", b"abc", b"", b"4294967296"]), numbers(DATABASES))
PATTERN: Word = st.sampled_from([b"*", b"a", b"[ab]", b"?", b"*:*", b"k*s", b"{a}*", b"", b"\\a", b"[^a]", b"zzz"])
SCAN_OPTION: Words = st.one_of(
    sequence(word(b"COUNT"), rarely(st.sampled_from([b"0", b"-1", b"x"]), numbers([10, 100]))),
    sequence(word(b"MATCH"), PATTERN),
    sequence(word(b"TYPE"), st.sampled_from([b"string", b"STRING", b"list", b"nothing"])),
    sequence(word(b"LIMIT"), INTEGER),
)
RESTORE_OPTION: Words = st.one_of(
    sequence(word(b"REPLACE")), sequence(word(b"ABSTTL")), sequence(word(b"IDLETIME"), INTEGER),
    sequence(word(b"FREQ"), INTEGER), sequence(word(b"TYPE")),
)  # fmt: skip

STRINGS: dict[str, Words] = {
    "get": sequence(KEY),
    "set": sequence(KEY, TEXT, st.one_of(NOTHING, some(SET_OPTION, 3))),
    "setnx": sequence(KEY, TEXT),
    "setex": sequence(KEY, ttl_of(LONG_S), TEXT),
    "psetex": sequence(KEY, ttl_of(LONG_MS), TEXT),
    "getset": sequence(KEY, TEXT),
    "getdel": sequence(KEY),
    "getex": sequence(KEY, some(GETEX_OPTION, 2)),
    "mget": some(KEY, 4, 1),
    "mset": some(sequence(KEY, TEXT), 3, 1),
    "msetnx": some(sequence(KEY, TEXT), 3, 1),
    "append": sequence(KEY, TEXT),
    "strlen": sequence(KEY),
    "getrange": sequence(KEY, INTEGER, INTEGER),
    "substr": sequence(KEY, INTEGER, INTEGER),
    "setrange": sequence(KEY, rarely(st.sampled_from([b"-1", b"536870912", b"x"]), numbers([0, 1, 3, 44, 90])), TEXT),
    "incr": sequence(KEY),
    "decr": sequence(KEY),
    "incrby": sequence(KEY, INTEGER),
    "decrby": sequence(KEY, INTEGER),
    "incrbyfloat": sequence(KEY, FLOAT),
    "lcs": sequence(KEY, KEY, some(LCS_OPTION, 3)),
}
BITS: dict[str, Words] = {
    "setbit": sequence(KEY, BIT_OFFSET, BIT),
    "getbit": sequence(KEY, BIT_OFFSET),
    "bitcount": sequence(KEY, maybe(sequence(INTEGER, INTEGER, maybe(RANGE_UNIT)))),
    "bitpos": sequence(KEY, BIT, maybe(sequence(INTEGER, maybe(sequence(INTEGER, maybe(RANGE_UNIT)))))),
    "bitop": sequence(word(b"AND", b"OR", b"XOR", b"NOT", b"NAND"), KEY, some(KEY, 3, 1)),
    "bitfield": sequence(KEY, some(st.one_of(FIELD_GET, FIELD_CHANGE), 4)),
    "bitfield_ro": sequence(KEY, some(st.one_of(FIELD_GET, FIELD_GET, FIELD_CHANGE), 3)),
}
GENERIC: dict[str, Words] = {
    "del": some(KEY, 3, 1),
    "unlink": some(KEY, 3, 1),
    "exists": some(KEY, 3, 1),
    "touch": some(KEY, 3, 1),
    "type": sequence(KEY),
    "keys": sequence(PATTERN),
    "scan": sequence(st.sampled_from([b"0", b"0", b"0", b"abc", b"-1x"]), some(SCAN_OPTION, 3)),
    "randomkey": NOTHING,
    "rename": sequence(KEY, KEY),
    "renamenx": sequence(KEY, KEY),
    "copy": sequence(KEY, KEY, some(st.one_of(sequence(word(b"REPLACE")), sequence(word(b"DB"), DATABASE)), 2)),
    "move": sequence(KEY, DATABASE),
    "persist": sequence(KEY),
    "expire": sequence(KEY, ttl_of(LONG_S), NX_OR_XX),
    "pexpire": sequence(KEY, ttl_of(LONG_MS), NX_OR_XX),
    "expireat": sequence(KEY, ttl_of(AT_S), CONDITIONS),
    "pexpireat": sequence(KEY, ttl_of(AT_MS), CONDITIONS),
    "ttl": sequence(KEY),
    "pttl": sequence(KEY),
    "expiretime": sequence(KEY),
    "pexpiretime": sequence(KEY),
    "dump": sequence(KEY),
    "restore": sequence(KEY, ttl_of(st.one_of(LONG_MS, AT_MS, st.just(b"0"))), st.sampled_from(PAYLOADS),
                        some(RESTORE_OPTION, 2)),
    "object": sequence(word(b"ENCODING", b"REFCOUNT", b"IDLETIME", b"FREQ"), KEY),
    "dbsize": NOTHING,
    "flushdb": maybe(word(b"SYNC", b"ASYNC", b"NOW")),
    "flushall": maybe(word(b"SYNC", b"ASYNC", b"NOW")),
    "swapdb": sequence(DATABASE, DATABASE),
}  # fmt: skip
CONNECTION: dict[str, Words] = {"ping": maybe(TEXT), "echo": sequence(TEXT), "time": NOTHING}
ARGUMENTS: dict[str, Words] = STRINGS | BITS | GENERIC | CONNECTION


def _damaged(command: list[bytes], roll: int) -> list[bytes]:
    """One command in twenty has an argument too few, one an argument too many."""
    if roll == 0 and len(command) > 1:
        return command[:-1]
    return [*command, b"a"] if roll == 1 else command


def command_of(name: str) -> Words:
    """A call of one command, sometimes with a wrong number of arguments."""
    named = word(name.upper().encode())
    return st.tuples(sequence(named, ARGUMENTS[name]), st.integers(0, 39)).map(lambda pair: _damaged(*pair))


def conversations(names: Iterable[str], size_max: int = 30) -> SearchStrategy[list[list[bytes]]]:
    """Conversations of 5 to ``size_max`` calls of some commands."""
    one = st.sampled_from(sorted(names)).flatmap(command_of)
    return st.lists(one, min_size=5, max_size=size_max)
