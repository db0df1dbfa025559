// What the client repeats and what it does not, against stand-ins for nodes.

import { status } from '@grpc/grpc-js';
import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  AuthenticationError,
  Client,
  type ClientOptions,
  NotAppliedError,
  OutcomeUnknownError,
  RedanError,
  RequestError,
} from '../src/index.js';
import {
  connectionLost,
  leading,
  lost,
  type Node,
  noLeader,
  outOfMemory,
  overloaded,
  refusal,
  serve,
  wrongPassword,
  wrongType,
} from './stand_in.js';

const QUICK = { timeout: 90_000, attemptTimeout: 30_000, firstPause: 1, longestPause: 10 };
const SUM = { value: '7' };

async function using(
  nodes: (Node | string)[],
  options: ClientOptions,
  run: (client: Client) => Promise<void>,
): Promise<void> {
  const addresses = nodes.map((node) => (typeof node === 'string' ? node : node.address));
  const client = new Client(addresses, { ...QUICK, ...options });
  try {
    await run(client);
  } finally {
    client.close();
  }
}

for (const [name, failure] of Object.entries({
  'no leader': noLeader,
  overloaded,
  'leadership lost': lost,
  'connection lost': connectionLost,
})) {
  test(`a write is repeated with the same request id: ${name}`, async () => {
    const node = await serve();
    node.answers = [failure, failure, SUM];
    await using([node], {}, async (client) => assert.equal(await client.increment('n'), 7n));
    const ids = node.asked.map((request) => request.requestId);
    assert.equal(ids.length, 3);
    assert.equal(new Set(ids).size, 1);
    assert.notEqual(ids[0], '');
  });
}

test('two writes have two request ids', async () => {
  const node = await serve();
  node.answers = [SUM];
  await using([node], {}, async (client) => {
    await client.increment('n');
    await client.increment('n');
  });
  assert.notEqual(node.asked[0].requestId, node.asked[1].requestId);
});

test('without a request id only what was not applied is repeated', async () => {
  const node = await serve();
  node.answers = [noLeader, lost, SUM];
  await using([node], { requestIds: false }, (client) => assert.rejects(client.increment('n'), OutcomeUnknownError));
  assert.deepEqual(
    node.asked.map((request) => request.requestId),
    ['', ''],
  );
});

test('a read is repeated whatever became of it', async () => {
  const node = await serve();
  node.answers = [lost, connectionLost, { value: Buffer.from('v') }];
  await using([node], { requestIds: false }, async (client) => {
    assert.deepEqual(await client.get('k'), Buffer.from('v'));
  });
  assert.equal(node.asked.length, 3);
});

for (const [name, failure, kind] of [
  ['rejected', wrongType, RequestError],
  ['wrong password', wrongPassword, AuthenticationError],
  ['out of memory', outOfMemory, NotAppliedError],
  ['reply not kept', refusal(status.RESOURCE_EXHAUSTED, 'REPLY_NOT_KEPT', 'unknown'), OutcomeUnknownError],
  ['no such call', refusal(status.UNIMPLEMENTED), RequestError],
  ['message too long', refusal(status.RESOURCE_EXHAUSTED), OutcomeUnknownError],
] as const) {
  test(`what will not pass is not repeated: ${name}`, async () => {
    const node = await serve();
    node.answers = [failure];
    await using([node], {}, (client) => assert.rejects(client.set('k', 'v'), kind));
    assert.equal(node.asked.length, 1);
  });
}

for (const [name, refused, kind] of [
  ['out of memory', outOfMemory, OutcomeUnknownError],
  ['rejected', refusal(status.INVALID_ARGUMENT, 'INVALID_REQUEST', 'rejected'), OutcomeUnknownError],
  ['wrong password', wrongPassword, OutcomeUnknownError],
  ['the answer of the command itself', wrongType, RequestError],
] as const) {
  test(`a write that may have been applied is not made undone by a refused repetition: ${name}`, async () => {
    const node = await serve();
    node.answers = [lost, noLeader, refused];
    await using([node], {}, async (client) => {
      await assert.rejects(client.increment('n'), (error: Error) => {
        assert.ok(error instanceof kind, error.message);
        assert.ok(error.message.includes(refused.details), error.message);
        return true;
      });
    });
    assert.equal(node.asked.length, 3);
  });
}

test('a write that may have been applied is not made undone by giving up', async () => {
  const node = await serve();
  node.answers = [lost, noLeader];
  await using([node], { timeout: 2000, attemptTimeout: 1000 }, (client) =>
    assert.rejects(client.increment('n'), OutcomeUnknownError),
  );
});

test('a write that may have been applied is not made undone by closing the client', async () => {
  const node = await serve();
  await using([node], {}, async (client) => {
    node.answers = [
      () => {
        client.close();
        return lost;
      },
    ];
    await assert.rejects(client.increment('n'), OutcomeUnknownError);
  });
});

for (const [name, times] of [
  ['GET', 2],
  ['incr', 2],
  ['SHUTDOWN', 1],
  ['CONFIG', 1],
] as const) {
  test(`a command of unknown outcome is repeated only if it is about keys: ${name}`, async () => {
    const node = await serve();
    node.answers = [connectionLost, wrongType];
    await using([node], {}, (client) => assert.rejects(client.execute(name, 'x')));
    assert.equal(node.asked.length, times);
  });
}

test('a call ends within its time limit with the last error', async () => {
  const node = await serve();
  node.answers = [noLeader];
  await using([node], { timeout: 2000, attemptTimeout: 1000 }, async (client) => {
    await assert.rejects(client.increment('n'), (error: RedanError) => {
      // The time limit may end the last attempt while it waits for its answer.
      assert.ok(error.reason === 'NO_LEADER' || error.code === 'DEADLINE_EXCEEDED', error.message);
      return true;
    });
  });
  assert.ok(node.asked.length >= 1);
});

test('the leader is asked and not the node that names it', async () => {
  const [node, leader] = [await serve(), await serve()];
  node.status = () => leading([node, leader], leader);
  leader.answers = [SUM];
  await using([node], {}, async (client) => {
    await client.increment('n');
    await client.increment('n');
  });
  assert.deepEqual([node.asked.length, leader.asked.length, node.statusCalls], [0, 2, 1]);
});

test('a new term makes the client look for the leader again', async () => {
  const [node, next] = [await serve(), await serve()];
  node.answers = [{ header: { term: '2' }, value: '1' }];
  next.answers = [SUM];
  await using([node], {}, async (client) => {
    assert.equal(await client.increment('n'), 1n);
    node.status = () => leading([node, next], next);
    assert.equal(await client.increment('n'), 7n);
  });
});

test('a node that fails or does not answer is left for another one', async () => {
  const [node, other] = [await serve(), await serve()];
  node.answers = [refusal(status.UNAVAILABLE, 'SHUTTING_DOWN', 'not_applied')];
  other.status = () => leading([other, node], node);
  other.answers = [SUM];
  await using(['127.0.0.1:1', node, other], {}, async (client) => assert.equal(await client.increment('n'), 7n));
  assert.ok(node.asked.length >= 1); // after some time it may be asked again
  assert.equal(other.asked.length, 1);
});

test('the password goes with every call', async () => {
  const node = await serve();
  node.answers = [SUM];
  await using([node], { password: 'secret' }, async (client) => {
    await client.increment('n');
  });
  assert.deepEqual(node.authorization, ['Bearer secret']);
});

test('text that looks like base64 is sent as the text that it is', async () => {
  const node = await serve();
  node.answers = [{ applied: true }];
  await using([node], {}, async (client) => {
    await client.set('abcd', 'AAAA');
    await client.set(new Uint8Array([0, 255]), 12.5);
  });
  assert.deepEqual(
    node.asked.map((request) => [request.key.toString('latin1'), request.value.toString('latin1')]),
    [
      ['abcd', 'AAAA'],
      ['\x00\xff', '12.5'],
    ],
  );
});

test('what is no address, no number and no time limit is refused', () => {
  for (const address of ['', 'nowhere:0', 'a:b', '::1', []]) {
    assert.throws(() => new Client(address), RangeError);
  }
  assert.throws(() => new Client('h:1', { timeout: 0 }), /timeout is 0/);
  for (const password of ['grün', 'se\ncret', 'se\u0001cret']) {
    assert.throws(() => new Client('h:1', { password }), /^RangeError: the password has characters that gRPC cannot carry/);
  }
  const client = new Client(['[::1]:7400', 'host']);
  assert.throws(() => client.pipeline().set('k', NaN), TypeError);
  client.close();
});

test('a client that was closed says so', async () => {
  const client = new Client('127.0.0.1:1', QUICK);
  client.close();
  await assert.rejects(client.get('k'), /closed/);
});
