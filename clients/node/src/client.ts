// The client: one connection a node, made when it is first asked.

import type { CallOptions, ClientUnaryCall, requestCallback } from '@grpc/grpc-js';
import { credentials, Metadata } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';

import { errorOfCall, RedanError, RequestError } from './errors.js';
import type { ClusterServiceClient } from './generated/redan/cluster/v1/ClusterService.js';
import type { StatusResponse__Output } from './generated/redan/cluster/v1/StatusResponse.js';
import type { DeleteResponse__Output } from './generated/redan/kv/v1/DeleteResponse.js';
import type { ExecuteResponse__Output } from './generated/redan/kv/v1/ExecuteResponse.js';
import type { ExistsResponse__Output } from './generated/redan/kv/v1/ExistsResponse.js';
import type { ExpireResponse__Output } from './generated/redan/kv/v1/ExpireResponse.js';
import type { GetResponse__Output } from './generated/redan/kv/v1/GetResponse.js';
import type { IncrementResponse__Output } from './generated/redan/kv/v1/IncrementResponse.js';
import type { MultiGetResponse__Output } from './generated/redan/kv/v1/MultiGetResponse.js';
import type { MultiSetResponse__Output } from './generated/redan/kv/v1/MultiSetResponse.js';
import type { ScanResponse__Output } from './generated/redan/kv/v1/ScanResponse.js';
import type { TtlResponse__Output } from './generated/redan/kv/v1/TtlResponse.js';
import type { ExpireRequest } from './generated/redan/kv/v1/ExpireRequest.js';
import type { KVServiceClient } from './generated/redan/kv/v1/KVService.js';
import type { ResponseHeader__Output } from './generated/redan/kv/v1/ResponseHeader.js';
import type { SetRequest } from './generated/redan/kv/v1/SetRequest.js';
import type { SetResponse__Output } from './generated/redan/kv/v1/SetResponse.js';
import { Pipeline } from './pipeline.js';
import { Attempts, isNodeAtFault, type Limits } from './policy.js';
import { ClusterService, KVService } from './protos.js';
import { Routes } from './routes.js';
import {
  type Argument,
  duration,
  encoded,
  isDataCommand,
  newId,
  type Reply,
  replyOf,
  type Text,
  timestamp,
} from './values.js';

/** The server's own bound, by default; gRPC's of 4 MiB is too small for values of 16 MiB. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** No proxy of the environment stands between; a node that comes back is reached within a second. */
const CHANNEL_OPTIONS = {
  'grpc.enable_http_proxy': 0,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
};

export interface ClientOptions extends Partial<Limits> {
  /** Proves who asks; gRPC carries printable ASCII alone. */
  password?: string | undefined;
  /** Number of the database, 0 by default. */
  database?: number;
  /** Whether writes get ids, true by default; without, one whose outcome is unknown is not repeated. */
  requestIds?: boolean;
}

export interface SetOptions {
  /** Milliseconds after which the key expires. */
  ttl?: number;
  /** When the key expires. */
  expireAt?: Date;
  /** Whether the key expires when it would have without this write. */
  keepTtl?: boolean;
}

export interface Entry {
  key: Buffer;
  /** The string, if values were asked for; null if the key holds another type or has just been removed. */
  value: Buffer | null;
  /** Whether the string was too long for the page; `get` reads it. */
  valueOmitted: boolean;
}

/** How long a key lives that has no deadline. */
export const NEVER = Infinity;

type Unary<Response> = (
  kv: KVServiceClient,
  metadata: Metadata,
  options: CallOptions,
  callback: requestCallback<Response>,
) => ClientUnaryCall;

/** Reads and writes keys of a cluster. */
export class Client {
  readonly #routes: Routes;
  readonly #metadata = new Metadata();
  readonly #database: number;
  readonly #requestIds: boolean;
  readonly #limits: Limits;
  readonly #nodes = new Map<string, { kv: KVServiceClient; cluster: ClusterServiceClient }>();
  #isClosed = false;

  /** Take the addresses of some nodes, host:port; nothing is connected yet. */
  constructor(addresses: string | readonly string[], options: ClientOptions = {}) {
    this.#routes = new Routes(addresses);
    this.#database = options.database ?? 0;
    this.#requestIds = options.requestIds ?? true;
    this.#limits = {
      timeout: options.timeout ?? 10_000,
      attemptTimeout: options.attemptTimeout ?? 3000,
      firstPause: options.firstPause ?? 20,
      longestPause: options.longestPause ?? 500,
    };
    for (const [name, limit] of Object.entries(this.#limits)) {
      if (!(limit > 0)) throw new RangeError(`${name} is ${limit}, and has to be greater than 0 ms`);
    }
    // gRPC would say so as well, with the password in its error.
    if (!/^[ -~]*$/.test(options.password ?? '')) {
      throw new RangeError('the password has characters that gRPC cannot carry: it takes printable ASCII');
    }
    if (options.password) this.#metadata.set('authorization', `Bearer ${options.password}`);
  }

  /** Close all connections. */
  close(): void {
    this.#isClosed = true;
    for (const node of this.#nodes.values()) node.kv.close();
    this.#nodes.clear();
  }

  /** Return the string at a key, null without one. */
  async get(key: Text): Promise<Buffer | null> {
    const request = { database: this.#database, key: encoded(key) };
    const response = await this.#invoke<GetResponse__Output>(true, (kv, ...rest) => kv.get(request, ...rest));
    return response.value ?? null;
  }

  /** Store a string; return whether it was stored. */
  async set(
    key: Text,
    value: Argument,
    options: SetOptions & { condition?: 'always' | 'ifAbsent' | 'ifPresent' } = {},
  ): Promise<boolean> {
    const request = this.#setRequest(key, value, options);
    if (options.condition === 'ifAbsent') request.condition = 'SET_CONDITION_IF_ABSENT';
    if (options.condition === 'ifPresent') request.condition = 'SET_CONDITION_IF_PRESENT';
    return (await this.#set(request)).applied;
  }

  /** Store a string and return the one that was there before, null without one. */
  async swap(key: Text, value: Argument, options: SetOptions = {}): Promise<Buffer | null> {
    const response = await this.#set({ ...this.#setRequest(key, value, options), returnPrevious: true });
    return response.previous ?? null;
  }

  #setRequest(key: Text, value: Argument, options: SetOptions): SetRequest {
    const request: SetRequest = {
      database: this.#database,
      key: encoded(key),
      value: encoded(value),
      requestId: this.newId(),
    };
    const given = [options.ttl, options.expireAt, options.keepTtl || undefined].filter((one) => one !== undefined);
    if (given.length > 1) throw new RangeError('ttl, expireAt and keepTtl exclude each other');
    if (options.ttl !== undefined) request.ttl = duration(options.ttl);
    if (options.expireAt !== undefined) request.expireAt = timestamp(options.expireAt);
    if (options.keepTtl) request.keepTtl = true;
    return request;
  }

  #set(request: SetRequest): Promise<SetResponse__Output> {
    return this.#invoke<SetResponse__Output>(this.#requestIds, (kv, ...rest) => kv.set(request, ...rest));
  }

  /** Remove keys in one step; return how many there were. */
  async delete(...keys: Text[]): Promise<number> {
    const request = { database: this.#database, keys: keys.map(encoded), requestId: this.newId() };
    return Number(
      (await this.#invoke<DeleteResponse__Output>(this.#requestIds, (kv, ...rest) => kv.delete(request, ...rest)))
        .deleted,
    );
  }

  /** Return how many of the keys exist. */
  async exists(...keys: Text[]): Promise<number> {
    const request = { database: this.#database, keys: keys.map(encoded) };
    return Number(
      (await this.#invoke<ExistsResponse__Output>(true, (kv, ...rest) => kv.exists(request, ...rest))).count,
    );
  }

  /** Add to the integer at a key, 0 without one; return the sum, which has up to 64 bits. */
  async increment(key: Text, delta: number | bigint = 1): Promise<bigint> {
    const request = {
      database: this.#database,
      key: encoded(key),
      delta: BigInt(delta).toString(),
      requestId: this.newId(),
    };
    return BigInt(
      (await this.#invoke<IncrementResponse__Output>(this.#requestIds, (kv, ...rest) => kv.increment(request, ...rest)))
        .value,
    );
  }

  /** Let a key expire after so many ms, or at a time; return whether it will: not without the key. */
  async expire(key: Text, when: number | Date): Promise<boolean> {
    return this.#expire(key, when instanceof Date ? { expireAt: timestamp(when) } : { ttl: duration(when) });
  }

  /** Take the deadline of a key away; return whether there was one. */
  async persist(key: Text): Promise<boolean> {
    return this.#expire(key, { persist: true });
  }

  async #expire(key: Text, expiry: ExpireRequest): Promise<boolean> {
    const request = { ...expiry, database: this.#database, key: encoded(key), requestId: this.newId() };
    return (await this.#invoke<ExpireResponse__Output>(this.#requestIds, (kv, ...rest) => kv.expire(request, ...rest)))
      .applied;
  }

  /** Return how many ms a key still lives: NEVER (Infinity) without a deadline, null without the key. */
  async ttl(key: Text): Promise<number | null> {
    const request = { database: this.#database, key: encoded(key) };
    const response = await this.#invoke<TtlResponse__Output>(true, (kv, ...rest) => kv.ttl(request, ...rest));
    if (!response.exists) return null;
    return response.ttl ? Number(response.ttl.seconds) * 1000 + response.ttl.nanos / 1e6 : NEVER;
  }

  /** Return the strings at several keys, read in one step; null where there is none. */
  async getMany(...keys: Text[]): Promise<(Buffer | null)[]> {
    const request = { database: this.#database, keys: keys.map(encoded) };
    const response = await this.#invoke<MultiGetResponse__Output>(true, (kv, ...rest) => kv.multiGet(request, ...rest));
    return response.lookups.map((lookup) => lookup.value ?? null);
  }

  /** Store several strings in one step; return whether they were stored. */
  async setMany(
    entries: Iterable<readonly [Text, Argument]> | Record<string, Argument>,
    options: { ifAllAbsent?: boolean } = {},
  ): Promise<boolean> {
    const pairs = Symbol.iterator in entries ? [...(entries as Iterable<[Text, Argument]>)] : Object.entries(entries);
    const request = {
      database: this.#database,
      entries: pairs.map(([key, value]) => ({ key: encoded(key), value: encoded(value) })),
      ifAllAbsent: options.ifAllAbsent ?? false,
      requestId: this.newId(),
    };
    return (
      await this.#invoke<MultiSetResponse__Output>(this.#requestIds, (kv, ...rest) => kv.multiSet(request, ...rest))
    ).applied;
  }

  /** Yield keys: those that match a pattern of Redis's glob style, all by default. A key that is there from the beginning
   * to the end is yielded at least once. */
  async *scan(match: Text = '', options: { withValues?: boolean; pageSize?: number } = {}): AsyncGenerator<Entry> {
    let pageToken = '';
    do {
      const request = {
        database: this.#database,
        match: encoded(match),
        withValues: options.withValues ?? false,
        pageSize: options.pageSize ?? 0,
        pageToken,
      };
      const response = await this.#invoke<ScanResponse__Output>(true, (kv, ...rest) => kv.scan(request, ...rest));
      for (const { key, value, valueOmitted } of response.entries) yield { key, value: value ?? null, valueOmitted };
      pageToken = response.nextPageToken;
    } while (pageToken !== '');
  }

  /** Run any command of the Redis API and return its reply. */
  async execute(...args: Argument[]): Promise<Reply> {
    const words = args.map(encoded);
    const runsOnce = this.#requestIds && isDataCommand(words);
    const request = { database: this.#database, args: words, requestId: runsOnce ? this.newId() : '' };
    return replyOf(
      (await this.#invoke<ExecuteResponse__Output>(runsOnce, (kv, ...rest) => kv.execute(request, ...rest))).value,
    );
  }

  /** Return an empty pipeline: commands that are sent together, by far the fastest way in. */
  pipeline(): Pipeline {
    return new Pipeline({
      database: this.#database,
      metadata: this.#metadata,
      requestIds: this.#requestIds,
      attempts: () => new Attempts(this.#limits, Date.now()),
      find: (attempts) => this.#find(attempts),
      pause: (attempts, address, error, runsOnce) => this.#pause(attempts, address, error, runsOnce),
      kv: (address) => this.#node(address).kv,
    });
  }

  /** Return how the cluster stands, as one of its nodes sees it. */
  async status(): Promise<StatusResponse__Output> {
    const attempts = new Attempts(this.#limits, Date.now());
    for (;;) {
      let last = new RedanError('nobody was asked');
      for (const address of this.#routes.candidates(Date.now())) {
        try {
          return await this.#askStatus(address, attempts.limit(Date.now()));
        } catch (failure) {
          last = failure as RedanError;
          if (!(last instanceof RedanError) || last instanceof RequestError) throw last;
          this.#routes.failed(address, Date.now());
        }
      }
      await sleep(attempts.pauseAfter(last, Date.now(), true));
    }
  }

  /** Return the identity of a new write, empty if writes get none. */
  private newId(): string {
    return this.#requestIds ? newId() : '';
  }

  /** Make a call, as often as is safe. */
  async #invoke<Response extends { header: ResponseHeader__Output | null }>(
    runsOnce: boolean,
    call: Unary<Response>,
  ): Promise<Response> {
    const attempts = new Attempts(this.#limits, Date.now());
    for (;;) {
      const address = await this.#find(attempts);
      try {
        const { kv } = this.#node(address);
        const response = await this.#once<Response>(attempts.limit(Date.now()), (options, callback) =>
          call(kv, this.#metadata, options, callback),
        );
        this.#routes.answered(response.header);
        return response;
      } catch (failure) {
        await this.#pause(attempts, address, failure, runsOnce);
      }
    }
  }

  #once<Response>(
    limit: number,
    call: (options: CallOptions, callback: requestCallback<Response>) => ClientUnaryCall,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      call({ deadline: Date.now() + limit }, (failure, response) => {
        if (failure) reject(errorOfCall(failure));
        else resolve(response as Response);
      });
    });
  }

  /** Wait until the next attempt; throw what to tell if there is none. */
  async #pause(attempts: Attempts, address: string, failure: unknown, runsOnce: boolean): Promise<void> {
    if (!(failure instanceof RedanError)) throw failure;
    if (isNodeAtFault(failure)) this.#routes.failed(address, Date.now());
    await sleep(attempts.pauseAfter(failure, Date.now(), runsOnce));
  }

  /** Return whom to ask: the leader, as far as anybody who answers knows it. */
  async #find(attempts: Attempts): Promise<string> {
    if (this.#routes.target) return this.#routes.target;
    const candidates = this.#routes.candidates(Date.now());
    for (const address of candidates) {
      try {
        const said = await this.#askStatus(address, attempts.probe(Date.now()));
        return this.#routes.learned(address, said, Date.now());
      } catch (failure) {
        if (!(failure instanceof RedanError)) throw failure;
        if (failure instanceof RequestError) return address; // the call itself will be told why
        this.#routes.failed(address, Date.now());
      }
    }
    return candidates[0] as string;
  }

  #askStatus(address: string, limit: number): Promise<StatusResponse__Output> {
    const { cluster } = this.#node(address);
    return this.#once(limit, (options, callback) => cluster.status({}, this.#metadata, options, callback));
  }

  #node(address: string): { kv: KVServiceClient; cluster: ClusterServiceClient } {
    if (this.#isClosed) throw new RequestError('the client is closed', 'CANCELLED');
    let node = this.#nodes.get(address);
    if (node === undefined) {
      const insecure = credentials.createInsecure();
      const kv = new KVService(address, insecure, CHANNEL_OPTIONS);
      const cluster = new ClusterService(address, insecure, { channelOverride: kv.getChannel() });
      node = { kv, cluster };
      this.#nodes.set(address, node);
    }
    return node;
  }
}
