// Writes through the client for some time and prints what was acknowledged, for tests that break nodes meanwhile.
//
// Usage: soak.js [--bare] HOST:PORT,HOST:PORT,… SECONDS [PREFIX]. The password is in REDAN_PASSWORD, if there is one. With
// --bare it uses the stubs alone, and repeats by itself.
//
// On standard output, one line each, written before the next write begins:
//
//   set KEY          the key PREFIX:N was stored with the value N
//   incr KEY VALUE   the counter PREFIX:counter was incremented by one, and the answer was VALUE
//   pipe KEY VALUE   the counter PREFIX:piped was incremented by one within a pipeline, and the answer was VALUE
//   failed TEXT      a write failed for good; the program goes on

import { credentials, Metadata } from '@grpc/grpc-js';
import { randomUUID } from 'node:crypto';
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { Client, KVService } from '../src/index.js';

const PIPED = 5;
const password = process.env['REDAN_PASSWORD'];

/** What is tried out. */
interface Writer {
  set(key: string, value: number): Promise<unknown>;
  increment(key: string): Promise<unknown>;
  pipeline(key: string): Promise<unknown[]>;
  close(): void;
}

function thin(addresses: string): Writer {
  const client = new Client(addresses, { password, timeout: 100_000, attemptTimeout: 2000 });
  return {
    set: (key, value) => client.set(key, value),
    increment: (key) => client.increment(key),
    pipeline: (key) => {
      const pipeline = client.pipeline();
      for (let number = 0; number < PIPED; number += 1) pipeline.increment(key);
      return pipeline.execute();
    },
    close: () => client.close(),
  };
}

/** The stubs, one of a node; a write goes to the next node until one takes it, with the same request id. */
function bare(addresses: string): Writer {
  const stubs = addresses.split(',').map((address) => new KVService(address, credentials.createInsecure()));
  const metadata = new Metadata();
  if (password) metadata.set('authorization', `Bearer ${password}`);
  let at = 0;

  async function repeat<T>(
    call: (stub: (typeof stubs)[number], id: string, deadline: number) => Promise<T>,
  ): Promise<T> {
    const id = randomUUID();
    for (const ends = Date.now() + 100_000; ;) {
      try {
        return await call(stubs[at] as (typeof stubs)[number], id, Date.now() + 2000);
      } catch (failure) {
        if (Date.now() > ends) throw failure;
        at = (at + 1) % stubs.length;
        await sleep(20);
      }
    }
  }
  const settle =
    (resolve: (response: any) => void, reject: (failure: Error) => void) =>
    (failure: Error | null, response: unknown): void =>
      failure ? reject(failure) : resolve(response);

  return {
    set: (key, value) =>
      repeat((stub, requestId, deadline) => {
        const request = { key: Buffer.from(key), value: Buffer.from(String(value)), requestId };
        return new Promise((resolve, reject) => stub.set(request, metadata, { deadline }, settle(resolve, reject)));
      }),
    increment: async (key) => {
      const response = await repeat<{ value: string }>((stub, requestId, deadline) => {
        const request = { key: Buffer.from(key), requestId };
        return new Promise((resolve, reject) =>
          stub.increment(request, metadata, { deadline }, settle(resolve, reject)),
        );
      });
      return response.value;
    },
    pipeline: (key) =>
      repeat<unknown[]>(
        (stub, id, deadline) =>
          new Promise((resolve, reject) => {
            const stream = stub.pipeline(metadata, { deadline });
            stream.on('error', reject);
            stream.on('data', (response) => {
              const failed = response.values.find((value: any) => value.error);
              if (failed) reject(new Error(failed.error.message));
              else resolve(response.values.map((value: any) => value.integer));
            });
            const args = [Buffer.from('INCR'), Buffer.from(key)];
            const numbers = Array.from({ length: PIPED }, (_, number) => number);
            stream.write({ commands: numbers.map((number) => ({ args, requestId: `${id}-${number}` })) });
            stream.end();
          }),
      ),
    close: () => stubs.forEach((stub) => stub.close()),
  };
}

/** Print a line, and be sure that it is out. */
function print(...words: unknown[]): void {
  writeSync(1, `${words.join(' ')}\n`);
}

const given = process.argv.slice(2);
const isBare = given[0] === '--bare';
const [addresses = '', seconds = '', prefix = 'node'] = isBare ? given.slice(1) : given;
const writer = isBare ? bare(addresses) : thin(addresses);
const ends = Date.now() + Number(seconds) * 1000;
for (let number = 1; Date.now() < ends; number += 1) {
  const key = `${prefix}:${number}`;
  try {
    await writer.set(key, number);
    print('set', key);
    print('incr', `${prefix}:counter`, await writer.increment(`${prefix}:counter`));
    for (const value of await writer.pipeline(`${prefix}:piped`)) print('pipe', `${prefix}:piped`, value);
  } catch (failure) {
    print('failed', String(failure).replaceAll('\n', ' '));
  }
}
writer.close();
