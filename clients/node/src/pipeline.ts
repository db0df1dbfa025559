// Commands that are sent together. They run in the order in which they were added, and a batch is not atomic. One that the
// cluster refused or lost is sent again, if that is safe: then it may run after commands that were added later.

import { type Metadata, type ServiceError, status } from '@grpc/grpc-js';

import { errorOfCall, OutcomeUnknownError, RedanError } from './errors.js';
import type { KVServiceClient } from './generated/redan/kv/v1/KVService.js';
import type { PipelineResponse__Output } from './generated/redan/kv/v1/PipelineResponse.js';
import { afterUnknown, type Attempts, isSafe } from './policy.js';
import { type Argument, duration, encoded, isDataCommand, newId, type Reply, replyOf, type Text } from './values.js';

/** Where the server's own cost of a message no longer shows; it takes 10,000. */
const COMMANDS_PER_MESSAGE = 500;
const BYTES_PER_MESSAGE = 512 * 1024;
/** What one attempt has time for also on a slow machine; the next stream follows at once. */
const MESSAGES_PER_STREAM = 20;

/** What a pipeline needs of its client. */
export interface PipelineClient {
  database: number;
  metadata: Metadata;
  requestIds: boolean;
  attempts(): Attempts;
  find(attempts: Attempts): Promise<string>;
  pause(attempts: Attempts, address: string, error: RedanError, runsOnce: boolean): Promise<void>;
  kv(address: string): KVServiceClient;
}

interface Queued {
  words: Buffer[];
  requestId: string;
  runsOnce: boolean;
  read: (reply: Reply) => Reply;
}

const asIs = (reply: Reply): Reply => reply;

export class Pipeline {
  readonly #client: PipelineClient;
  #queued: Queued[] = [];

  constructor(client: PipelineClient) {
    this.#client = client;
  }

  /** How many commands wait to be sent. */
  get length(): number {
    return this.#queued.length;
  }

  /** Read a string; the result is a Buffer, or null. */
  get(key: Text): this {
    return this.#add(['GET', key]);
  }

  /** Store a string; the result is whether it was stored. */
  set(
    key: Text,
    value: Argument,
    options: { ttl?: number; condition?: 'always' | 'ifAbsent' | 'ifPresent' } = {},
  ): this {
    const words: Argument[] = ['SET', key, value];
    if (options.condition === 'ifAbsent') words.push('NX');
    if (options.condition === 'ifPresent') words.push('XX');
    if (options.ttl !== undefined) {
      duration(options.ttl); // refuses what is no time to live
      words.push('PX', Math.ceil(options.ttl));
    }
    return this.#add(words, (reply) => reply !== null);
  }

  /** Remove keys; the result is how many there were. */
  delete(...keys: Text[]): this {
    return this.#add(['DEL', ...keys], (reply) => Number(reply));
  }

  /** Add to an integer; the result is the sum, a bigint. */
  increment(key: Text, delta: number | bigint = 1): this {
    return this.#add(['INCRBY', key, BigInt(delta)]);
  }

  /** Add any command of the Redis API; the result is its reply. */
  command(...args: Argument[]): this {
    return this.#add(args);
  }

  #add(args: Argument[], read: (reply: Reply) => Reply = asIs): this {
    if (args.length === 0) throw new RangeError('a command has at least a name');
    const words = args.map(encoded);
    const runsOnce = this.#client.requestIds && isDataCommand(words);
    this.#queued.push({ words, requestId: runsOnce ? newId() : '', runsOnce, read });
    return this;
  }

  /** Send all and return their results in order; the pipeline is empty afterwards. Throws the first error of a command,
   * unless throwErrors is false: then errors are among the results. */
  async execute(options: { throwErrors?: boolean } = {}): Promise<Reply[]> {
    const queued = this.#queued;
    this.#queued = [];
    const client = this.#client;
    const batches = new Batches(queued, client.database);
    let attempts = client.attempts();
    while (batches.waiting.length > 0) {
      const before = batches.waiting.length;
      const address = await client.find(attempts);
      let error: RedanError | null = null;
      try {
        error = await batches.send(client.kv(address), client.metadata, attempts.limit(Date.now()));
        if (batches.waiting.length < before) attempts = client.attempts(); // the time limit is one for going on
        if (error !== null) await client.pause(attempts, address, error, batches.runsOnce());
      } catch (failure) {
        if (!(failure instanceof RedanError)) throw failure;
        batches.gaveUp(error ?? failure);
        break;
      }
    }
    const failed = batches.results.find((result) => result instanceof RedanError);
    if (failed !== undefined && options.throwErrors !== false) throw failed;
    return batches.results;
  }
}

/** Commands on their way. */
class Batches {
  readonly results: Reply[];
  /** Positions of the commands to send, in order. */
  waiting: number[];
  readonly #queued: Queued[];
  readonly #database: number;
  /** The last unknown outcome of each command that had one. */
  readonly #unknown = new Map<number, OutcomeUnknownError>();

  constructor(queued: Queued[], database: number) {
    this.#queued = queued;
    this.#database = database;
    this.results = queued.map(() => null);
    this.waiting = queued.map((_, position) => position);
  }

  /** Tell whether all that has no result may be sent again. */
  runsOnce(): boolean {
    return this.waiting.every((position) => this.#at(position).runsOnce);
  }

  /** Note that nothing will be sent any more: `why` is the result of what was never sent. */
  gaveUp(why: RedanError): void {
    for (const position of this.waiting) this.results[position] ??= why;
  }

  /** Send a part of what waits over one stream; return why some of it has to be sent again, null if nothing has. */
  send(kv: KVServiceClient, metadata: Metadata, limit: number): Promise<RedanError | null> {
    const messages = this.#messages();
    const again: number[] = [];
    let answered = 0;
    let sent = 0;
    let why: RedanError | null = null;
    return new Promise((resolve) => {
      const stream = kv.pipeline(metadata, { deadline: Date.now() + limit });
      let isOver = false;
      const end = (failure: RedanError | null): void => {
        if (isOver) return;
        isOver = true;
        this.waiting = [...again, ...this.waiting.slice(sent)];
        if (failure !== null) for (const position of messages.slice(answered).flat()) this.#failed(position, failure);
        stream.cancel();
        resolve(failure ?? why);
      };
      stream.on('data', (response: PipelineResponse__Output) => {
        const positions = messages[answered];
        if (isOver || positions === undefined || response.values.length !== positions.length) {
          stream.cancel();
          return;
        }
        answered += 1;
        sent += positions.length;
        positions.forEach((position, at) => {
          const queued = this.#at(position);
          const reply = replyOf(response.values[at] ?? null);
          if (!(reply instanceof RedanError)) {
            this.results[position] = queued.read(reply);
            return;
          }
          this.#failed(position, reply);
          if (isSafe(reply, queued.runsOnce)) {
            again.push(position);
            why = reply;
          }
        });
        if (answered === messages.length) end(null);
      });
      stream.on('error', (failure: ServiceError) => end(errorOfCall(failure)));
      stream.on('status', (said: ServiceError) => {
        const isEarly = said.code === status.OK; // it ended in order, and not all of its messages were answered
        end(isEarly ? new OutcomeUnknownError('the stream ended before all was answered') : errorOfCall(said));
      });
      messages.forEach((positions, at) => {
        const commands = positions.map((position) => {
          const { words, requestId } = this.#at(position);
          return { args: words, requestId };
        });
        stream.write({ batchId: String(at + 1), database: this.#database, commands });
      });
      stream.end();
    });
  }

  /** Note what a command that was sent failed with. */
  #failed(position: number, error: RedanError): void {
    this.results[position] = afterUnknown(this.#unknown.get(position), error);
    if (error instanceof OutcomeUnknownError) this.#unknown.set(position, error);
  }

  /** Return the positions of the commands of each message of the next stream. */
  #messages(): number[][] {
    const messages: number[][] = [];
    let positions: number[] = [];
    let size = 0;
    for (const position of this.waiting) {
      const { words } = this.#at(position);
      const length = words.reduce((sum, word) => sum + word.length + 4, 44);
      if (positions.length >= COMMANDS_PER_MESSAGE || (positions.length > 0 && size + length > BYTES_PER_MESSAGE)) {
        messages.push(positions);
        if (messages.length === MESSAGES_PER_STREAM) return messages;
        positions = [];
        size = 0;
      }
      positions.push(position);
      size += length;
    }
    messages.push(positions);
    return messages;
  }

  #at(position: number): Queued {
    return this.#queued[position] as Queued;
  }
}
