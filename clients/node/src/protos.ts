// The protobufs as grpc-js has them, read from the sources in the package.

import { loadPackageDefinition } from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';
import { loadSync } from '@grpc/proto-loader';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ProtoGrpcType as ClusterTypes } from './generated/cluster.js';
import type { ProtoGrpcType as DetailTypes } from './generated/details.js';
import type { ProtoGrpcType as KvTypes } from './generated/kv.js';
import type { ErrorInfo, ErrorInfo__Output } from './generated/redan/client/v1/ErrorInfo.js';
import type { Status, Status__Output } from './generated/redan/client/v1/Status.js';

/** Where the sources are: beside dist in the package. */
function sources(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const found = join(folder, 'proto', 'redan');
    if (existsSync(found)) return join(folder, 'proto');
    if (folder === dirname(folder)) throw new Error('the protobuf sources of redan-client are missing');
  }
}

const loaded = loadSync(['redan/kv/v1/kv.proto', 'redan/cluster/v1/cluster.proto', 'details.proto'], {
  includeDirs: [sources()],
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const types = loadPackageDefinition(loaded) as unknown as KvTypes & ClusterTypes & DetailTypes;

/** The stubs: `new KVService(address, credentials)` is all of the service and nothing of this client. */
export const { KVService } = types.redan.kv.v1 as KvTypes['redan']['kv']['v1'];
export const { ClusterService } = types.redan.cluster.v1 as ClusterTypes['redan']['cluster']['v1'];

type Message<Given, Read> = MessageTypeDefinition<Given, Read>;
export const statusType = loaded['redan.client.v1.Status'] as Message<Status, Status__Output>;
export const errorInfoType = loaded['redan.client.v1.ErrorInfo'] as Message<ErrorInfo, ErrorInfo__Output>;
