// The Node client of Redan. It asks the leader, which it finds by itself, and repeats what is safe.

export { Client, type ClientOptions, type Entry, NEVER, type SetOptions } from './client.js';
export { AuthenticationError, NotAppliedError, OutcomeUnknownError, RedanError, RequestError } from './errors.js';
export type { Pipeline } from './pipeline.js';
export { ClusterService, KVService } from './protos.js';
export type { Argument, Reply, Text } from './values.js';
