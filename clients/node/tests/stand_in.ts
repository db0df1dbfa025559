// A server that answers as a test tells it: the other side of the client, for what no real node does on demand.

import { Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import { after } from 'node:test';

import { ClusterService, KVService } from '../src/index.js';
import { errorInfoType, statusType } from '../src/protos.js';

/** What ends a call. */
export interface Refusal {
  code: status;
  details: string;
  metadata: Metadata;
}

export function refusal(code: status, reason = '', outcome = ''): Refusal {
  const metadata = new Metadata();
  if (reason !== '') {
    const value = errorInfoType.serialize({ reason, domain: 'redan', metadata: { outcome, prefix: 'ERR' } });
    const details = [{ typeUrl: 'type.googleapis.com/google.rpc.ErrorInfo', value }];
    metadata.set('grpc-status-details-bin', statusType.serialize({ code, message: reason, details }));
  }
  return { code, details: `because of ${reason}`, metadata };
}

export const noLeader = refusal(status.UNAVAILABLE, 'NO_LEADER', 'not_applied');
export const overloaded = refusal(status.RESOURCE_EXHAUSTED, 'OVERLOADED', 'not_applied');
export const outOfMemory = refusal(status.RESOURCE_EXHAUSTED, 'OUT_OF_MEMORY', 'not_applied');
export const lost = refusal(status.ABORTED, 'LEADERSHIP_LOST', 'unknown');
export const wrongType = refusal(status.FAILED_PRECONDITION, 'WRONG_TYPE', 'rejected');
export const wrongPassword = refusal(status.UNAUTHENTICATED, 'WRONG_PASSWORD', 'rejected');
export const connectionLost = refusal(status.UNAVAILABLE);

export class Node {
  address = '';
  /** Requests of KVService, in order. */
  asked: any[] = [];
  authorization: unknown[] = [];
  /** Responses, refusals, or null in a stream: its end; the last stays. */
  answers: any[] = [];
  statusCalls = 0;
  status: () => object = () => leading([this], this);

  answer(request: any, metadata: Metadata): any {
    this.asked.push(request);
    this.authorization.push(metadata.get('authorization')[0]);
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    return typeof answer === 'function' ? answer(request) : answer;
  }
}

/** Return what the first of some nodes says of a cluster that one of them leads. */
export function leading(nodes: Node[], leader: Node): object {
  const members = nodes.map((node) => ({ name: node.address, grpcAddress: node.address, leader: node === leader }));
  return { node: nodes[0]?.address, leader: leader.address, term: '1', members };
}

/** Serve a stand-in on a port that the kernel chooses, until the tests of the file are over. */
export async function serve(): Promise<Node> {
  const node = new Node();
  const server = new Server();
  const unary = (call: any, callback: any): void => {
    const answer = node.answer(call.request, call.metadata);
    if ('details' in answer) callback(answer);
    else callback(null, answer);
  };
  const pipeline = (call: any): void => {
    let isOver = false;
    call.on('data', (request: any) => {
      if (isOver) return;
      const answer = node.answer(request, call.metadata);
      if (answer === null) {
        isOver = true;
        call.end();
      } else if ('details' in answer) {
        isOver = true;
        call.emit('error', answer);
      } else {
        call.write({ batchId: request.batchId, ...answer });
      }
    });
    call.on('end', () => isOver || call.end());
    call.on('error', () => undefined);
  };
  const names = Object.keys(KVService.service).filter((name) => !['Pipeline', 'ScanStream'].includes(name));
  server.addService(KVService.service, {
    ...Object.fromEntries(names.map((name) => [name, unary])),
    Pipeline: pipeline,
    ScanStream: pipeline,
  } as never);
  server.addService(ClusterService.service, {
    ...Object.fromEntries(Object.keys(ClusterService.service).map((name) => [name, unary])),
    Status: (_call: any, callback: any) => {
      node.statusCalls += 1;
      callback(null, node.status());
    },
  } as never);
  await new Promise<void>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
      node.address = `127.0.0.1:${port}`;
      if (error) reject(error);
      else resolve();
    });
  });
  after(() => server.forceShutdown());
  return node;
}
