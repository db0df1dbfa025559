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

export function isNodeAtFault(error: RedanError): boolean {
  return NODE_AT_FAULT.has(error.reason) || (error.reason === '' && LOST_CALL.has(error.code));
}

/** The attempts of one call. */
export class Attempts {
  readonly #limits: Limits;
  readonly #ends: number;
  #failed = 0;

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

  /** Return how long to wait before the next attempt: random, up to a bound that doubles. Throw the error if there is none. */
  pauseAfter(error: RedanError, now: number, runsOnce: boolean): number {
    if (!isSafe(error, runsOnce)) throw error;
    const most = Math.min(this.#limits.longestPause, this.#limits.firstPause * 2 ** Math.min(this.#failed, 16));
    this.#failed += 1;
    const pause = most * Math.random();
    if (now + pause >= this.#ends) throw error;
    return pause;
  }
}
