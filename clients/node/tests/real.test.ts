// Every method against a real cluster, whose addresses are in REDAN_ADDRESSES; left out without.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client, NEVER, RequestError } from '../src/index.js';

const addresses = process.env['REDAN_ADDRESSES'] ?? '';
const skip = addresses === '' && 'REDAN_ADDRESSES names no nodes';

async function using(run: (client: Client) => Promise<void>): Promise<void> {
  const client = new Client(addresses, { database: 4 });
  try {
    await client.execute('FLUSHDB');
    await run(client);
  } finally {
    client.close();
  }
}

test('strings, conditions and counters on real nodes', { skip }, () =>
  using(async (client) => {
    assert.equal(await client.get('k'), null);
    assert.equal(await client.set('k', 'v', { condition: 'ifPresent' }), false);
    assert.equal(await client.set('k', Buffer.from([0, 255]), { condition: 'ifAbsent', ttl: 1000_500 }), true);
    assert.deepEqual(await client.swap('k', 1.5, { keepTtl: true }), Buffer.from([0, 255]));
    const ttl = (await client.ttl('k')) ?? 0;
    assert.ok(900_000 < ttl && ttl <= 1000_500);
    assert.equal(await client.swap('new', 1), null);
    assert.equal(await client.increment('n', -(2n ** 63n)), -(2n ** 63n));
    assert.equal(await client.exists('k', 'n', 'none'), 2);
    assert.equal(await client.delete('n', 'none'), 1);
    await assert.rejects(client.increment('k'), RequestError);
  }),
);

test('deadlines on real nodes', { skip }, () =>
  using(async (client) => {
    assert.equal(await client.ttl('k'), null);
    await client.set('k', '', { expireAt: new Date(Date.now() + 3600_000) });
    assert.equal(await client.persist('k'), true);
    assert.equal(await client.ttl('k'), NEVER);
    assert.equal(await client.expire('k', 60_000), true);
    assert.equal(await client.expire('none', 60_000), false);
    assert.deepEqual(await client.get('k'), Buffer.alloc(0));
    assert.equal(await client.expire('k', new Date(1980, 1, 1)), true);
    assert.equal(await client.get('k'), null);
  }),
);

test('many keys, scans, commands and pipelines on real nodes', { skip }, () =>
  using(async (client) => {
    const entries = Object.fromEntries(Array.from({ length: 300 }, (_, number) => [`key:${number}`, number]));
    assert.equal(await client.setMany(entries), true);
    assert.equal(await client.setMany([['key:1', 1]], { ifAllAbsent: true }), false);
    assert.deepEqual(await client.getMany('key:7', 'none'), [Buffer.from('7'), null]);
    const found: Record<string, number> = {};
    for await (const { key, value } of client.scan('key:*', { withValues: true, pageSize: 20 })) {
      found[String(key)] = Number(String(value));
    }
    assert.deepEqual(found, entries);
    assert.deepEqual(await client.execute('MGET', 'key:1', 'none'), [Buffer.from('1'), null]);
    const pipeline = client.pipeline().set('p', 'v', { ttl: 1000 }).get('p').get('none').delete('p').increment('n', 2);
    const results = await pipeline.command('INCR', 'key').command('SET', 'f', 1.5).increment('f').execute({
      throwErrors: false,
    });
    assert.ok(results.pop() instanceof RequestError);
    assert.deepEqual(results, [true, Buffer.from('v'), null, 1, 2n, 1n, 'OK']);
    assert.notEqual((await client.status()).leader, '');
  }),
);
