// Commands and replies as JavaScript has them.

import { randomUUID } from 'node:crypto';

import { errorOfCommand, RedanError } from './errors.js';
import type { Value__Output } from './generated/redan/kv/v1/Value.js';

/** A key or a string; a string of JavaScript is sent as UTF-8. */
export type Text = string | Uint8Array;
/** An argument of a command; numbers are sent as decimal text. */
export type Argument = Text | number | bigint;
/** A reply of a command. Integers are bigint, since they have 64 bits; a status such as OK is a string, other text a Buffer. */
export type Reply = null | string | Buffer | bigint | number | boolean | Reply[] | Map<Reply, Reply> | RedanError;

/** Commands that read, or that a request id makes run once. Others are about one node, such as SHUTDOWN: they are never
 * repeated when it is not known whether they were done. */
const DATA_COMMANDS = new Set(
  `APPEND BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS COPY DBSIZE DECR DECRBY DEL DUMP ECHO EXISTS EXPIRE EXPIREAT
  EXPIRETIME FLUSHALL FLUSHDB GET GETBIT GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT KEYS LCS MGET MOVE
  MSET MSETNX OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PING PSETEX PTTL RANDOMKEY RENAME RENAMENX RESTORE
  SCAN SET SETBIT SETEX SETNX SETRANGE STRLEN SUBSTR SWAPDB TIME TOUCH TTL TYPE UNLINK`.split(/\s+/),
);

/** Tell whether sending a command twice, with its request id, is the same as once. */
export function isDataCommand(words: readonly Buffer[]): boolean {
  return words[0] !== undefined && DATA_COMMANDS.has(words[0].toString('latin1').toUpperCase());
}

/** Return a new identity of a write. */
export function newId(): string {
  return randomUUID();
}

/** Return the bytes of an argument. A string is always text: protobufjs would take it for base64. */
export function encoded(argument: Argument): Buffer {
  if (typeof argument === 'string') return Buffer.from(argument, 'utf8');
  if (argument instanceof Uint8Array) return Buffer.from(argument.buffer, argument.byteOffset, argument.byteLength);
  if (typeof argument === 'bigint' || (typeof argument === 'number' && Number.isFinite(argument))) {
    return Buffer.from(String(argument), 'utf8');
  }
  throw new TypeError(`${String(argument)} is neither text nor a finite number`);
}

/** Return a reply; an error is returned and not thrown. */
export function replyOf(value: Value__Output | null): Reply {
  switch (value?.kind) {
    case 'status':
      return value.status ?? '';
    case 'bulk':
      return value.bulk ?? Buffer.alloc(0);
    case 'integer':
      return BigInt(value.integer ?? 0);
    case 'double':
      return value.double ?? 0;
    case 'boolean':
      return value.boolean ?? false;
    case 'array':
      return (value.array?.values ?? []).map(replyOf);
    case 'set':
      return (value.set?.values ?? []).map(replyOf);
    case 'map':
      return new Map((value.map?.entries ?? []).map((entry) => [replyOf(entry.key), replyOf(entry.value)]));
    case 'error':
      return value.error ? errorOfCommand(value.error) : null;
    case 'verbatim':
      return value.verbatim?.text ?? Buffer.alloc(0);
    default:
      return null;
  }
}

/** Return a time to live, in ms, as a Duration. */
export function duration(milliseconds: number): { seconds: string; nanos: number } {
  const whole = Math.ceil(milliseconds);
  if (!(whole > 0) || !Number.isSafeInteger(whole)) {
    throw new RangeError(`a time to live of ${milliseconds} ms is not possible`);
  }
  return { seconds: String(Math.floor(whole / 1000)), nanos: (whole % 1000) * 1_000_000 };
}

/** Return a time as a Timestamp. */
export function timestamp(at: Date): { seconds: string; nanos: number } {
  const whole = at.getTime();
  if (Number.isNaN(whole)) throw new RangeError('the time is not valid');
  const seconds = Math.floor(whole / 1000);
  return { seconds: String(seconds), nanos: (whole - seconds * 1000) * 1_000_000 };
}
