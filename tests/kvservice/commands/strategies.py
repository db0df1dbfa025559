"""What to say to two servers that must answer alike: calls of every data command, and conversations made of them.

A seeded generator makes a pool of calls for each command; Hypothesis composes conversations from the pools and shrinks
them. So a call costs Hypothesis one choice, and calls are as varied as the generator makes them: left to Hypothesis,
which prefers small numbers, half of all calls were of the first command and most keys did not exist.

Keys and values come from small alphabets, so that commands meet; about a tenth of all arguments is wrong in some way.
Times are either far from now or long past: a reply that depends on the millisecond could not be compared. For the same
reason GT and LT only meet deadlines that are absolute: two relative ones may differ by the time between them only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import Random

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Call = list[bytes]
Maker = Callable[[Random], Call]
"""Makes some words of a call."""

POOL_SIZE = 800
KEYS = [b"a", b"b", b"{a}1", b"key:with:colons", b""]
DATABASES = (0, 1)

TEXTS = [
    b"", b"0", b"7", b"10", b"-5", b"-0", b"01", b"+1", b" 1", b"1 ", b"9223372036854775807", b"-9223372036854775808",
    b"9223372036854775808", b"99999999999999999999", b"3.0", b"1.5e3", b"0.1", b"-.25", b"0x1p-3", b"inf", b"nan",
    b"hello", b"Hello World", b"\x00", b"\xff", b"\xff\xff\xf0", b"\x00\x00\x10", b"a\r\nb\x00c", b"x" * 44, b"x" * 45,
    b"ohmytext", b"mynewtext", b"\xff" * 70, b"\xff\xff", b"abcabba", b"cbabac", b"babab",
]  # fmt: skip
INTEGERS = [0, 1, -1, 2, 3, 5, 7, 8, 10, 44, 63, 64, 65, 100, 255, 256, -2, -3, -100, 1000]
HUGE = [9223372036854775807, -9223372036854775808, 9223372036854775806, 4294967295, 4294967296, 2147483648]
NOT_INTEGERS = [b"", b"abc", b"1.0", b"+1", b"01", b" 1", b"9223372036854775808", b"1\x00", b"-"]
FLOATS = [
    b"0.1", b"0.2", b"-0.3", b"1", b"3.0e3", b"1e17", b"-1e-17", b"123456789.123456789", b"1e20", b"4e-19", b".5",
    b"5.", b"0x10", b"0.333333333333333333333", b"9007199254740993", b"18446744073709551617", b"1e4931", b"-7.5",
    b"2.25", b"0.000000000000000005", b"36893488147419103231", b"-0",
]  # fmt: skip
NOT_FLOATS = [b"inf", b"-inf", b"nan", b"", b"abc", b"1e4932", b"1e5000", b"1e-5000", b".", b"1e", b" 1", b"1_0"]

LONG_TTL_S = range(100, 10_000, 97)
FUTURE_S = [4_000_000_000, 4_000_000_001, 5_000_000_000]
PAST_S = [1, 1_000, 1_000_000_000]
BAD_TTL = [b"0", b"-1", b"abc", b"", b"1.5", b"9223372036854775807", b"9223372036854775", b"-9223372036854775808"]
# Redis lets the sum of a large RESTORE TTL and the time wrap around to the past. We refuse it, so it is not asked.
BAD_RESTORE_TTL = [b"-1", b"abc", b"", b"1.5", b"-9223372036854775808"]

FIELD_TYPES = [b"u1", b"u2", b"u8", b"i8", b"u13", b"i16", b"i5", b"u63", b"i64", b"i1", b"u32"]
BAD_FIELD_TYPES = [b"u64", b"i65", b"u0", b"x8", b"", b"u", b"U8", b"i", b"u08", b"u-1"]

# DUMP payloads of redis-server 7.0.
PAYLOADS = [
    bytes.fromhex("00c07b0a0048e253e1007a67b9"),  # the integer 123
    bytes.fromhex("000568656c6c6f0a006372df766534200a"),  # hello
    bytes.fromhex("00c3094064017878e057000178780a005db7f663bb08625f"),  # 100 times x
    bytes.fromhex("00c2701101000a0001a408fe953095a5"),  # the integer 70000
]
BAD_PAYLOADS = [
    bytes.fromhex("000568656c6c6f0a006372df766534200b"),  # a wrong checksum
    bytes.fromhex("000568656c6c6f63006372df766534200a"),  # a version of the future
    b"\x00",
    b"",
]


def one_of(*choices: bytes) -> Maker:
    """One of some words, as it is."""
    return lambda chance: [chance.choice(choices)]


def word(*choices: bytes) -> Maker:
    """One of some words, sometimes in another letter case."""
    return one_of(*choices * 3, *(choice.lower() for choice in choices), *(choice.title() for choice in choices))


def numbers(choices: Iterable[int]) -> Maker:
    return one_of(*(b"%d" % choice for choice in choices))


def either(*makers: Maker) -> Maker:
    """What one of the makers makes; a maker may be named twice."""
    return lambda chance: chance.choice(makers)(chance)


def rarely(strange: Maker, usual: Maker) -> Maker:
    """Mostly the usual, one time in ten the strange."""
    return lambda chance: (strange if chance.random() < 0.1 else usual)(chance)


def sequence(*makers: Maker) -> Maker:
    """What all the makers make, in a row."""
    return lambda chance: [made for maker in makers for made in maker(chance)]


def some(maker: Maker, at_most: int, at_least: int = 0) -> Maker:
    """What a maker makes in some repetitions."""
    return lambda chance: [made for _ in range(chance.randint(at_least, at_most)) for made in maker(chance)]


def nothing(_chance: Random) -> Call:
    return []


def few_bytes(chance: Random) -> Call:
    return [chance.choice([chance.randbytes(chance.randrange(12)), bytes(chance.choices(b"abc", k=7))])]


KEY = one_of(*KEYS)
TEXT = either(one_of(*TEXTS), one_of(*TEXTS), few_bytes, numbers(INTEGERS))
INTEGER = rarely(either(one_of(*NOT_INTEGERS), numbers(HUGE)), numbers(INTEGERS))
FLOAT = rarely(one_of(*NOT_FLOATS), either(one_of(*FLOATS), lambda chance: [repr(chance.gauss(0, 1e6)).encode()]))
BIT = rarely(one_of(b"2", b"-1", b"abc", b""), one_of(b"0", b"1"))
BIT_OFFSET = rarely(
    one_of(b"-1", b"abc", b"4294967296", b"9223372036854775807", b"#1", b""),
    numbers([0, 1, 6, 7, 8, 9, 31, 63, 64, 100, 511, 1000]),
)
LONG_S = numbers(LONG_TTL_S)
LONG_MS = numbers(second * 1000 + 7 for second in LONG_TTL_S)
AT_S = rarely(numbers(PAST_S), numbers(FUTURE_S))
AT_MS = rarely(
    numbers(second * 1000 for second in PAST_S),
    numbers(second * 1000 + 499 * odd for second in FUTURE_S for odd in (0, 0, 1)),
)


def ttl_of(usual: Maker) -> Maker:
    return rarely(one_of(*BAD_TTL), usual)


EXPIRY = either(
    sequence(word(b"EX"), ttl_of(LONG_S)), sequence(word(b"PX"), ttl_of(LONG_MS)),
    sequence(word(b"EXAT"), ttl_of(AT_S)), sequence(word(b"PXAT"), ttl_of(AT_MS)),
)  # fmt: skip
SET_OPTION = either(word(b"NX"), word(b"XX"), word(b"GET"), word(b"KEEPTTL"), EXPIRY)
GETEX_OPTION = either(EXPIRY, word(b"PERSIST"))
CONDITIONS = either(
    nothing, word(b"GT", b"LT"), word(b"NX", b"XX", b"GT", b"LT"), some(word(b"NX", b"XX", b"GT", b"LT", b"EX"), 2)
)
NX_OR_XX = either(nothing, word(b"NX", b"XX"), rarely(sequence(word(b"NX"), word(b"GT", b"XX")), nothing))

FIELD_TYPE = rarely(rarely(one_of(*BAD_FIELD_TYPES), one_of(*FIELD_TYPES)), one_of(*FIELD_TYPES))
FIELD_OFFSET = rarely(
    one_of(b"-1", b"#-1", b"#", b"abc", b"4294967296", b"#9223372036854775", b""),
    one_of(b"0", b"1", b"5", b"8", b"62", b"100", b"#0", b"#1", b"#3"),
)
FIELD_NUMBER = either(INTEGER, numbers(HUGE), numbers([127, 128, -128, -129, 255, 256, 8191, 8192, -1]))
FIELD_GET = sequence(word(b"GET"), FIELD_TYPE, FIELD_OFFSET)
FIELD_CHANGE = either(
    sequence(word(b"SET"), FIELD_TYPE, FIELD_OFFSET, FIELD_NUMBER),
    sequence(word(b"INCRBY"), FIELD_TYPE, FIELD_OFFSET, FIELD_NUMBER),
    sequence(word(b"OVERFLOW"), rarely(word(b"NO"), word(b"WRAP", b"SAT", b"FAIL"))),
)
RANGE_UNIT = rarely(word(b"BITS"), word(b"BIT", b"BYTE"))
LIMITS = either(sequence(INTEGER, INTEGER), sequence(INTEGER, INTEGER, RANGE_UNIT))
LCS_OPTION = either(word(b"LEN"), word(b"IDX"), word(b"WITHMATCHLEN"), sequence(word(b"MINMATCHLEN"), INTEGER))
DATABASE = rarely(one_of(b"-1", b"16", b"abc", b"", b"4294967296"), numbers(DATABASES))
PATTERN = one_of(b"*", b"a", b"[ab]", b"?", b"*:*", b"k*s", b"{a}*", b"", b"\\a", b"[^a]", b"zzz")
SCAN_OPTION = either(
    sequence(word(b"COUNT"), rarely(one_of(b"0", b"-1", b"x"), numbers([10, 100]))),
    sequence(word(b"MATCH"), PATTERN),
    sequence(word(b"TYPE"), one_of(b"string", b"STRING", b"list", b"nothing")),
    rarely(sequence(word(b"LIMIT"), INTEGER), nothing),
)
RESTORE_OPTION = either(
    word(b"REPLACE"), word(b"ABSTTL"), sequence(word(b"IDLETIME"), INTEGER), sequence(word(b"FREQ"), INTEGER),
    rarely(word(b"TYPE"), nothing),
)  # fmt: skip

STRINGS: dict[str, Maker] = {
    "get": KEY,
    "set": sequence(KEY, TEXT, either(nothing, SET_OPTION, SET_OPTION, some(SET_OPTION, 3))),
    "setnx": sequence(KEY, TEXT),
    "setex": sequence(KEY, ttl_of(LONG_S), TEXT),
    "psetex": sequence(KEY, ttl_of(LONG_MS), TEXT),
    "getset": sequence(KEY, TEXT),
    "getdel": KEY,
    "getex": sequence(KEY, either(nothing, GETEX_OPTION, GETEX_OPTION, some(GETEX_OPTION, 2))),
    "mget": some(KEY, 4, 1),
    "mset": some(sequence(KEY, TEXT), 3, 1),
    "msetnx": some(sequence(KEY, TEXT), 3, 1),
    "append": sequence(KEY, TEXT),
    "strlen": KEY,
    "getrange": sequence(KEY, INTEGER, INTEGER),
    "substr": sequence(KEY, INTEGER, INTEGER),
    "setrange": sequence(KEY, rarely(one_of(b"-1", b"536870912", b"x"), numbers([0, 1, 3, 44, 90])), TEXT),
    "incr": KEY,
    "decr": KEY,
    "incrby": sequence(KEY, either(INTEGER, INTEGER, numbers(HUGE))),
    "decrby": sequence(KEY, either(INTEGER, INTEGER, numbers(HUGE))),
    "incrbyfloat": sequence(KEY, FLOAT),
    "lcs": sequence(KEY, KEY, some(LCS_OPTION, 2)),
}
BITS: dict[str, Maker] = {
    "setbit": sequence(KEY, BIT_OFFSET, BIT),
    "getbit": sequence(KEY, BIT_OFFSET),
    "bitcount": sequence(KEY, either(nothing, LIMITS, LIMITS)),
    "bitpos": sequence(KEY, BIT, either(nothing, INTEGER, LIMITS)),
    "bitop": either(
        sequence(word(b"NOT"), KEY, rarely(some(KEY, 2, 2), KEY)),
        sequence(rarely(word(b"NAND"), word(b"AND", b"OR", b"XOR")), KEY, some(KEY, 3, 1)),
    ),
    "bitfield": sequence(KEY, some(either(FIELD_GET, FIELD_CHANGE, FIELD_CHANGE), 4)),
    "bitfield_ro": sequence(KEY, some(FIELD_GET, 3), rarely(FIELD_CHANGE, nothing)),
}
GENERIC: dict[str, Maker] = {
    "del": some(KEY, 2, 1),
    "unlink": some(KEY, 2, 1),
    "exists": some(KEY, 3, 1),
    "touch": some(KEY, 3, 1),
    "type": KEY,
    "keys": PATTERN,
    "scan": sequence(rarely(one_of(b"abc", b"-1x"), one_of(b"0")), some(SCAN_OPTION, 3)),
    "randomkey": nothing,
    "rename": sequence(KEY, KEY),
    "renamenx": sequence(KEY, KEY),
    "copy": sequence(
        KEY, KEY, some(either(word(b"REPLACE"), sequence(word(b"DB"), DATABASE)), 2), rarely(word(b"NO"), nothing)
    ),
    "move": sequence(KEY, DATABASE),
    "persist": KEY,
    "expire": sequence(KEY, ttl_of(LONG_S), NX_OR_XX),
    "pexpire": sequence(KEY, ttl_of(LONG_MS), NX_OR_XX),
    "expireat": sequence(KEY, ttl_of(AT_S), CONDITIONS),
    "pexpireat": sequence(KEY, ttl_of(AT_MS), CONDITIONS),
    "ttl": KEY,
    "pttl": KEY,
    "expiretime": KEY,
    "pexpiretime": KEY,
    "dump": KEY,
    "restore": sequence(
        KEY, rarely(one_of(*BAD_RESTORE_TTL), either(LONG_MS, AT_MS, one_of(b"0"))),
        rarely(one_of(*BAD_PAYLOADS), one_of(*PAYLOADS)),
        either(word(b"REPLACE"), some(RESTORE_OPTION, 3)),
    ),
    "object": sequence(word(b"ENCODING", b"REFCOUNT", b"IDLETIME", b"FREQ"), KEY),
    "dbsize": nothing,
    "flushdb": either(nothing, word(b"SYNC", b"ASYNC", b"NOW")),
    "flushall": either(nothing, word(b"SYNC", b"ASYNC", b"NOW")),
    "swapdb": sequence(DATABASE, DATABASE),
}  # fmt: skip
CONNECTION: dict[str, Maker] = {"ping": either(nothing, TEXT), "echo": TEXT, "time": nothing}
ARGUMENTS: dict[str, Maker] = STRINGS | BITS | GENERIC | CONNECTION

WIPERS = {"flushall", "flushdb", "swapdb"}
"""Commands after which there is little left to talk about come less often."""

STORE = either(
    sequence(one_of(b"SET"), KEY, TEXT),
    sequence(one_of(b"SET"), KEY, TEXT, one_of(b"EXAT"), numbers(FUTURE_S)),
    sequence(one_of(b"SETRANGE"), KEY, one_of(b"0"), TEXT),
    rarely(sequence(one_of(b"SELECT"), numbers(DATABASES)), sequence(one_of(b"SET"), KEY, numbers(INTEGERS))),
)
"""Gives the other commands something to talk about: values of every encoding, some with a deadline."""


def call_of(name: str, chance: Random) -> Call:
    """Return a call of one command; one in forty has an argument too few or too many."""
    call = [*word(name.upper().encode())(chance), *ARGUMENTS[name](chance)]
    roll = chance.random()
    if roll < 0.0125:
        return call[:-1] if len(call) > 1 else call
    return [*call, b"a"] if roll < 0.025 else call


@cache
def pool_of(name: str) -> tuple[Call, ...]:
    """Return many calls of one command, short ones first, which is what Hypothesis shrinks to."""
    chance = Random(name)
    return tuple(sorted((call_of(name, chance) for _ in range(POOL_SIZE)), key=lambda call: (len(call), call)))


@cache
def stores() -> tuple[Call, ...]:
    """Return many calls that store something."""
    chance = Random("stores")
    return tuple(sorted((STORE(chance) for _ in range(POOL_SIZE)), key=lambda call: (len(call), call)))


def conversations(names: Iterable[str], size_min: int = 12, size_max: int = 36) -> SearchStrategy[list[Call]]:
    """Conversations of some calls that store something, and then a mixture of these and calls of some commands."""
    ordered = sorted(names)
    mixture = [*stores() * max(1, len(ordered) // 6)]
    mixture += [call for name in ordered for call in pool_of(name)[:: 5 if name in WIPERS else 1]]
    return st.builds(
        list.__add__,
        st.lists(evenly_from(stores()), min_size=2, max_size=6),
        st.lists(evenly_from(mixture), min_size=size_min, max_size=size_max),
    )


def evenly_from(calls: Sequence[Call]) -> SearchStrategy[Call]:
    """One of some calls, each as likely as the others: of all that Hypothesis draws, bytes are the most even."""
    return st.binary(min_size=3, max_size=3).map(lambda number: calls[int.from_bytes(number, "big") % len(calls)])
