// Which node to ask: the leader if it is known, for any other node has to ask it too; else any that answers.
//
// The addresses that the caller gave are never forgotten: those that the cluster tells may lead nowhere from here.

import type { StatusResponse__Output } from './generated/redan/cluster/v1/StatusResponse.js';
import type { ResponseHeader__Output } from './generated/redan/kv/v1/ResponseHeader.js';

/** About as long as a node needs to start anew, and longer than an election. */
const AVOID_MS = 2000;
const DEFAULT_PORT = '7400';

/** Return host:port of an address that may lack the port; throw for one that is none. */
export function withPort(address: string): string {
  const match = /^(\[[0-9a-fA-F:.%a-z]+\]|[^:[\]\s]+)(?::(\d+))?$/.exec(address);
  const port = match?.[2] ?? DEFAULT_PORT;
  if (match === null || Number(port) < 1 || Number(port) > 65535) {
    throw new RangeError(`'${address}' is no address; host:port is one, [::1]:7400 too`);
  }
  return `${match[1]}:${port}`;
}

export class Routes {
  readonly #given: string[];
  #members: string[] = [];
  readonly #avoided = new Map<string, number>();
  /** Whom to ask; empty if it has to be found out first. */
  target = '';
  #term = 0n;

  constructor(addresses: string | readonly string[]) {
    const given = typeof addresses === 'string' ? addresses.split(',') : addresses;
    this.#given = [...new Set(given.map((address) => withPort(address.trim())))];
    if (this.#given.length === 0) throw new RangeError('at least one address is needed');
  }

  /** Return whom to ask who leads, in order: those that failed of late come last, the latest at the end. */
  candidates(now: number): string[] {
    const until = (address: string): number => {
      const end = this.#avoided.get(address) ?? 0;
      return end > now ? end : 0;
    };
    return [...new Set([...this.#given, ...this.#members])].sort((a, b) => until(a) - until(b));
  }

  /** Note that a node should not be asked next. */
  failed(address: string, now: number): void {
    this.#avoided.set(address, now + AVOID_MS);
    if (this.target === address) this.target = '';
  }

  /** Note what the node at an address said of the cluster; return whom to ask. */
  learned(address: string, said: StatusResponse__Output, now: number): string {
    this.#members = said.members.map((member) => member.grpcAddress).filter((at) => at !== '');
    const term = BigInt(said.term);
    if (term > this.#term) this.#term = term;
    this.target = address;
    if (said.node !== said.leader) {
      const leader = said.members.find((member) => member.leader && member.grpcAddress !== '')?.grpcAddress;
      if (leader !== undefined && (this.#avoided.get(leader) ?? 0) <= now) this.target = leader;
    }
    return this.target;
  }

  /** Note a response: in a new term there may be a new leader, which has to be found out. */
  answered(header: ResponseHeader__Output | null): void {
    const term = BigInt(header?.term ?? 0);
    if (term > this.#term) {
      this.#term = term;
      this.target = '';
    }
  }
}
