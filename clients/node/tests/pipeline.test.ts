// Pipelines: what is sent together, what comes back, and what is sent again.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client, type ClientOptions, NotAppliedError, OutcomeUnknownError, RequestError } from '../src/index.js';
import { connectionLost, type Node, serve } from './stand_in.js';

const QUICK = { timeout: 90_000, attemptTimeout: 30_000, firstPause: 1, longestPause: 10 };
const OK = { status: 'OK' };

function failed(reason: string, outcome: string): object {
  return { error: { code: 10, reason, outcome, message: 'it failed', prefix: 'ERR' } };
}

function allOk(request: { commands: object[] }): object {
  return { values: request.commands.map(() => OK) };
}

function keys(request: { commands: { args: Buffer[] }[] }): string[] {
  return request.commands.map((command) => String(command.args[1]));
}

async function using(node: Node, options: ClientOptions, run: (client: Client) => Promise<void>): Promise<void> {
  const client = new Client(node.address, { ...QUICK, ...options });
  try {
    await run(client);
  } finally {
    client.close();
  }
}

test('results come in order as JavaScript has them', async () => {
  const node = await serve();
  node.answers = [{ values: [OK, {}, { integer: '3' }, { bulk: Buffer.from('v') }, { integer: '2' }] }];
  await using(node, {}, async (client) => {
    const pipeline = client.pipeline().set('a', 1).set('a', 2, { condition: 'ifAbsent', ttl: 1500 }).increment('n', 3);
    const results = await pipeline.get('b').delete('a', 'b').execute();
    assert.deepEqual(results, [true, false, 3n, Buffer.from('v'), 2]);
    assert.equal(pipeline.length, 0);
  });
  assert.deepEqual(
    node.asked[0].commands.map((command: { args: Buffer[] }) => command.args.join(' ')),
    ['SET a 1', 'SET a 2 NX PX 1500', 'INCRBY n 3', 'GET b', 'DEL a b'],
  );
});

test('only the commands that the cluster refused or lost are sent again', async () => {
  const node = await serve();
  const values = [
    OK,
    failed('NO_LEADER', 'OUTCOME_NOT_APPLIED'),
    failed('WRONG_TYPE', 'OUTCOME_REJECTED'),
    failed('LEADERSHIP_LOST', 'OUTCOME_UNKNOWN'),
  ];
  node.answers = [{ values }, allOk];
  await using(node, {}, async (client) => {
    const pipeline = client.pipeline().set('a', 1).set('b', 2).set('c', 3).set('d', 4);
    const results = await pipeline.execute({ throwErrors: false });
    assert.ok(results[2] instanceof RequestError);
    assert.deepEqual([results[0], results[1], results[3]], [true, true, true]);
  });
  const [first, again] = node.asked;
  assert.deepEqual(keys(again), ['b', 'd']);
  assert.equal(again.commands[0].requestId, first.commands[1].requestId);
});

test('what a stream did not answer is sent again in order', async () => {
  const node = await serve();
  node.answers = [allOk, connectionLost, allOk];
  const count = 12_345; // more than one stream carries
  const wanted = Array.from({ length: count }, (_, number) => `k${number}`);
  await using(node, {}, async (client) => {
    const pipeline = client.pipeline();
    for (const key of wanted) pipeline.set(key, 1);
    assert.deepEqual(
      await pipeline.execute(),
      wanted.map(() => true),
    );
  });
  const sent = node.asked.filter((_, at) => at !== 1).flatMap(keys); // without the message that was lost
  assert.deepEqual(sent, wanted);
  const ids = (at: number): string[] => node.asked[at].commands.map((one: { requestId: string }) => one.requestId);
  assert.deepEqual(ids(1), ids(2));
});

test('without request ids a lost stream is an error for each command without an answer', async () => {
  const node = await serve();
  node.answers = [connectionLost];
  await using(node, { requestIds: false }, async (client) => {
    const results = await client.pipeline().increment('a').increment('b').execute({ throwErrors: false });
    assert.ok(results.every((result) => result instanceof OutcomeUnknownError));
  });
  assert.equal(node.asked.length, 1);
});

test('a stream that ends in order without all answers has an unknown outcome, and is sent again', async () => {
  const node = await serve();
  node.answers = [null];
  await using(node, { requestIds: false }, async (client) => {
    const [result] = await client.pipeline().increment('a').execute({ throwErrors: false });
    assert.ok(result instanceof OutcomeUnknownError);
    assert.equal(result.code, 'UNKNOWN');
  });
  node.answers = [null, allOk];
  await using(node, {}, async (client) => {
    assert.deepEqual(await client.pipeline().set('a', 1).execute(), [true]);
  });
  assert.equal(node.asked.length, 3);
});

test('a command that may have been applied is not made undone by a refused repetition', async () => {
  const node = await serve();
  const [lost, refused] = [failed('LEADERSHIP_LOST', 'OUTCOME_UNKNOWN'), failed('OUT_OF_MEMORY', 'OUTCOME_NOT_APPLIED')];
  node.answers = [
    { values: [failed('NO_LEADER', 'OUTCOME_NOT_APPLIED'), lost, lost] },
    { values: [refused, refused, failed('WRONG_TYPE', 'OUTCOME_REJECTED')] },
  ];
  await using(node, {}, async (client) => {
    const pipeline = client.pipeline().set('a', 1).set('b', 1).set('c', 1);
    const [a, b, c] = await pipeline.execute({ throwErrors: false });
    assert.ok(a instanceof NotAppliedError);
    assert.ok(b instanceof OutcomeUnknownError);
    assert.match(b.message, /OUT_OF_MEMORY/);
    assert.ok(c instanceof RequestError);
  });
});

test('the commands of a lost message are not made undone by a refused repetition', async () => {
  const node = await serve();
  const refused = failed('OUT_OF_MEMORY', 'OUTCOME_NOT_APPLIED');
  for (const broken of [connectionLost, null]) {
    node.answers = [broken, { values: [refused, refused] }];
    await using(node, {}, async (client) => {
      const results = await client.pipeline().set('a', 1).set('b', 1).execute({ throwErrors: false });
      assert.ok(results.every((result) => result instanceof OutcomeUnknownError));
    });
  }
  assert.equal(node.asked.length, 4);
});

test('what was never sent has the error for which the client gave up', async () => {
  const node = await serve();
  const lost = failed('LEADERSHIP_LOST', 'OUTCOME_UNKNOWN');
  node.answers = [(request: { commands: object[] }) => ({ values: request.commands.map(() => lost) })];
  const count = 10_000; // what one stream carries
  await using(node, {}, async (client) => {
    const pipeline = client.pipeline();
    for (let number = 0; number < count; number += 1) pipeline.increment('n');
    pipeline.command('CONFIG', 'RESETSTAT'); // never sent, and not repeatable
    const results = await pipeline.execute({ throwErrors: false });
    assert.equal(results.length, count + 1);
    assert.ok(results.every((result) => result instanceof OutcomeUnknownError));
  });
  assert.equal(node.asked.length, count / 500);
});

test('the first error of a command is thrown, and an empty pipeline has no results', async () => {
  const node = await serve();
  node.answers = [{ values: [OK, failed('WRONG_TYPE', 'OUTCOME_REJECTED')] }];
  await using(node, {}, async (client) => {
    await assert.rejects(client.pipeline().set('a', 1).increment('a').execute(), /it failed/);
    assert.deepEqual(await client.pipeline().execute(), []);
  });
});
