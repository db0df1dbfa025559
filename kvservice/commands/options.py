"""Arguments as Redis reads them: integers, bit offsets, deadlines, and the option words of SET and GETEX.

Guarantees: the texts of the errors are those of Redis 7.2, and options are judged from left to right as Redis does.
Leaves to the caller: raising before anything is changed, which is why a deadline is computed before it is stored.
Reference: the Redis command pages of SET, GETEX and SETBIT.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.table import Args
from kvservice.errors import RequestError
from kvservice.keyspace.values import INT64_MAX, STRING_BYTES_MAX, compact

NOT_AN_INTEGER: Final = "value is not an integer or out of range"
NOT_A_FLOAT: Final = "value is not a valid float"
SYNTAX_ERROR: Final = "syntax error"
BAD_BIT_OFFSET: Final = "bit offset is not an integer or out of range"
TOO_LONG: Final = "string exceeds maximum allowed size (proto-max-bulk-len)"

UNIT_MS: Final = {b"EX": 1000, b"PX": 1, b"EXAT": 1000, b"PXAT": 1}
RELATIVE: Final = (b"EX", b"PX")

SET_WORDS: Final = frozenset({b"NX", b"XX", b"GET", b"KEEPTTL", *UNIT_MS})
GETEX_WORDS: Final = frozenset({b"PERSIST", *UNIT_MS})


def integer(text: bytes, message: str = NOT_AN_INTEGER) -> int:
    """Return the 64-bit integer that ``text`` spells; no blanks, plus signs or leading zeros. Raise RequestError."""
    number = compact(text)
    if type(number) is not int:
        raise RequestError(message)
    return number


def bit_offset(text: bytes, bits_per_step: int = 0) -> int:
    """Return a bit position; with ``bits_per_step``, ``#n`` counts in steps of that many bits. Raise RequestError."""
    if bits_per_step and text.startswith(b"#"):
        offset = integer(text[1:], BAD_BIT_OFFSET) * bits_per_step
    else:
        offset = integer(text, BAD_BIT_OFFSET)
    if not 0 <= offset < STRING_BYTES_MAX * 8:
        raise RequestError(BAD_BIT_OFFSET)
    return offset


def check_length(size: int, added: int, bytes_max: int | None = None) -> None:
    """Raise RequestError if ``size + added`` bytes are more than ``bytes_max``, or than any string may have."""
    if size + added > (STRING_BYTES_MAX if bytes_max is None else bytes_max):
        raise RequestError(TOO_LONG)


def deadline_of_option(word: bytes, text: bytes, now_ms: int, command: str) -> int:
    """Return the deadline in ms that an option such as ``EX 10`` means at ``now_ms``. Raise RequestError."""
    amount_ms = integer(text) * UNIT_MS[word]
    deadline_ms = amount_ms + now_ms if word in RELATIVE else amount_ms
    if amount_ms <= 0 or deadline_ms > INT64_MAX:
        raise RequestError(f"invalid expire time in '{command}' command")
    return deadline_ms


class StringOptions:
    """The option words that a SET or GETEX gave."""

    __slots__ = ("expire_text", "expire_word", "words")

    def __init__(self) -> None:
        self.words: list[bytes] = []
        self.expire_word = b""
        """One of ``UNIT_MS``, or empty."""
        self.expire_text = b""

    def deadline(self, now_ms: int, command: str) -> int | None:
        """Return the deadline in ms that was asked for, or None if there was none. Raise RequestError."""
        if not self.expire_word:
            return None
        return deadline_of_option(self.expire_word, self.expire_text, now_ms, command)


def string_options(args: Args, start: int, allowed: frozenset[bytes]) -> StringOptions:
    """Read the option words from ``args[start]`` on. Raise RequestError for unknown words and contradictions.

    The same expiry option may be given twice, the last one counts; so it is in Redis.
    """
    options = StringOptions()
    words = options.words
    position = start
    while position < len(args):
        word = args[position].upper()
        position += 1
        if word not in allowed:
            raise RequestError(SYNTAX_ERROR)
        if word in UNIT_MS:
            other = options.expire_word not in (b"", word)
            if other or b"KEEPTTL" in words or b"PERSIST" in words or position == len(args):
                raise RequestError(SYNTAX_ERROR)
            options.expire_word = word
            options.expire_text = args[position]
            position += 1
            continue
        if (word == b"NX" and b"XX" in words) or (word == b"XX" and b"NX" in words):
            raise RequestError(SYNTAX_ERROR)
        if word in (b"KEEPTTL", b"PERSIST") and options.expire_word:
            raise RequestError(SYNTAX_ERROR)
        words.append(word)
    return options
