// What is repeated, when and for how long: decisions only.
//
// A call is repeated only if nothing was done, or if doing it twice is the same as once (`runsOnce`): a read, or a write
// with a request id, which the cluster runs once however often it comes.

import { NotAppliedError, OutcomeUnknownError, RedanError } from './errors.js';

/** How a call ends, without details, when the node or the way to it breaks. */
const LOST_CALL = new Set(['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED', 'INTERNAL', 'UNKNOWN']);
/** Reasons for which another node is asked next. */
const NODE_AT_FAULT = new Set(['NO_LEADER', 'LOADING', 'SHUTTING_DOWN', 'SESSION_ENDED', 'NOT_LEADER']);
/** What does not pass by itself; the second says that the write was done, and that its long reply is gone. */
const LASTING = new Set(['OUT_OF_MEMORY', 'REPLY_NOT_KEPT']);

/** What only the command itself answers, when it runs. The cluster remembers it for the request id: so the first attempt
 * came to the same. Any other refusal may precede the look at the request id, and tells nothing of the first attempt. */
const FIRST_ANSWER = new Set(['WRONG_TYPE', 'KEY_EXISTS']);

/** How long and how often, in milliseconds. */
export interface Limits {
  /** For a call, with all of its attempts. */
  timeout: number;
  /** For one attempt: a node that hangs is left after that, and after a third of it when asked who leads. */
  attemptTimeout: number;
  /** At most, before the second attempt; an election takes some hundreds. */
  firstPause: number;
  /** At most, before any attempt. */
  longestPause: number;
}

export function isSafe(error: RedanError, runsOnce: boolean): boolean {
  if (LASTING.has(error.reason)) return false;
  if (error instanceof NotAppliedError) return true;
  if (!(error instanceof OutcomeUnknownError) || !runsOnce) return false;
  return error.reason !== '' || LOST_CALL.has(error.code);
}

/** Return what to tell of a request that failed, after an attempt whose outcome is unknown, if there was one. */
export function afterUnknown(unknown: OutcomeUnknownError | undefined, error: RedanError): RedanError {
  if (unknown === undefined || error instanceof OutcomeUnknownError || FIRST_ANSWER.has(error.reason)) return error;
  const text = `${unknown.message}; it was repeated, and failed: ${error.reason || error.code}: ${error.message}`;
  return new OutcomeUnknownError(text, unknown.code, unknown.reason, unknown.metadata);
}

export function isNodeAtFault(error: RedanError): boolean {
  return NODE_AT_FAULT.has(error.reason) || (error.reason === '' && LOST_CALL.has(error.code));
}

/** The attempts of one call. */
export class Attempts {
  readonly #limits: Limits;
  readonly #ends: number;
  #failed = 0;
  /** What the last attempt of unknown outcome failed with. */
  #unknown: OutcomeUnknownError | undefined;

  constructor(limits: Limits, now: number) {
    this.#limits = limits;
    this.#ends = now + limits.timeout;
  }

  /** Return how long the attempt that begins now may take. */
  limit(now: number): number {
    return Math.max(1, Math.min(this.#limits.attemptTimeout, this.#ends - now));
  }

  /** Return how long a node that is asked now gets to say who leads. */
  probe(now: number): number {
    return Math.min(this.#limits.attemptTimeout / 3, this.limit(now));
  }

  /** Return the pause before the next attempt: random, up to a bound that doubles. If there is none, throw what to tell. */
  pauseAfter(error: RedanError, now: number, runsOnce: boolean): number {
    const told = afterUnknown(this.#unknown, error);
    if (error instanceof OutcomeUnknownError) this.#unknown = error;
    if (!isSafe(error, runsOnce)) throw told;
    const most = Math.min(this.#limits.longestPause, this.#limits.firstPause * 2 ** Math.min(this.#failed, 16));
    this.#failed += 1;
    const pause = most * Math.random();
    if (now + pause >= this.#ends) throw told;
    return pause;
  }
}
