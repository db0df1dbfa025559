// The errors of the client, sorted by what the caller may conclude.

import type { ServiceError } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';

import type { CommandError__Output } from './generated/redan/kv/v1/CommandError.js';
import { errorInfoType, statusType } from './protos.js';

const DOMAIN = 'redan';
/** Codes that say without details that a call did nothing, and would do nothing again. */
const REFUSED_BY_GRPC = new Set(['INVALID_ARGUMENT', 'UNIMPLEMENTED', 'PERMISSION_DENIED', 'NOT_FOUND']);

/** Base of all errors of the client. */
export class RedanError extends Error {
  /** Name of the canonical status code, such as ABORTED. */
  readonly code: string;
  /** Why, such as WRONG_TYPE; empty if no node said so. */
  readonly reason: string;
  /** What else the node said, such as `prefix`, the first word of the error that a Redis client would see. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(text: string, code = 'UNKNOWN', reason = '', metadata: Record<string, string> = {}) {
    super(text);
    this.name = new.target.name;
    this.code = code;
    this.reason = reason;
    this.metadata = metadata;
  }
}

/** The request is wrong: the same one fails again. */
export class RequestError extends RedanError {}

/** The password is wrong or missing. */
export class AuthenticationError extends RequestError {}

/** Nothing was done and nothing will happen later. */
export class NotAppliedError extends RedanError {}

/** A write may or may not be applied, or may still be. */
export class OutcomeUnknownError extends RedanError {}

type ErrorClass = new (text: string, code: string, reason: string, metadata: Record<string, string>) => RedanError;

function classOf(outcome: string | undefined): ErrorClass {
  return outcome === 'rejected' ? RequestError : outcome === 'not_applied' ? NotAppliedError : OutcomeUnknownError;
}

/** Return what the status of a call says; what is not known to be harmless has an unknown outcome. */
export function errorOfCall(failure: ServiceError): RedanError {
  const code = status[failure.code] ?? 'UNKNOWN';
  const text = failure.details || code;
  const info = errorInfo(failure);
  if (info !== undefined) {
    let kind = classOf(info.metadata['outcome']);
    if (code === 'UNAUTHENTICATED') kind = AuthenticationError;
    // ClusterService refuses without an outcome.
    else if (!('outcome' in info.metadata) && code === 'FAILED_PRECONDITION') kind = RequestError;
    return new kind(text, code, info.reason, info.metadata);
  }
  if (code === 'UNAUTHENTICATED') return new AuthenticationError(text, code);
  return new (REFUSED_BY_GRPC.has(code) ? RequestError : OutcomeUnknownError)(text, code);
}

/** Return what one command of a pipeline was answered with. */
export function errorOfCommand(failed: CommandError__Output): RedanError {
  const outcome = failed.outcome.replace('OUTCOME_', '').toLowerCase();
  const metadata = { outcome, prefix: failed.prefix };
  return new (classOf(outcome))(failed.message, status[failed.code] ?? 'UNKNOWN', failed.reason, metadata);
}

function errorInfo(failure: ServiceError): { reason: string; metadata: Record<string, string> } | undefined {
  for (const encoded of failure.metadata?.get('grpc-status-details-bin') ?? []) {
    if (typeof encoded === 'string') continue;
    try {
      for (const detail of statusType.deserialize(encoded).details) {
        if (!detail.typeUrl.endsWith('/google.rpc.ErrorInfo')) continue;
        const info = errorInfoType.deserialize(detail.value);
        if (info.domain === DOMAIN) return { reason: info.reason, metadata: { ...info.metadata } };
      }
    } catch {
      // Bytes that are no details say nothing.
    }
  }
  return undefined;
}
