// Holds objects of the Prometheus operator against its schemas. Reads a JSON array of them from standard input, prints a
// line for every error, and ends with exit code 1 if there is one. Must stand beside node_modules.
import { readFileSync } from 'node:fs';
import * as v1 from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';

let errors = 0;
const complain = (object, text) => {
  errors += 1;
  console.log(`${object.kind}/${object.metadata?.name}: ${text}`);
};
for (const object of JSON.parse(readFileSync(0, 'utf8'))) {
  const model = object.apiVersion === 'monitoring.coreos.com/v1' ? v1[object.kind] : undefined;
  if (model === undefined) {
    complain(object, `no schema for ${object.apiVersion}`);
    continue;
  }
  try {
    new model(object).validate();
  } catch (error) {
    complain(object, error.message);
  }
}
process.exit(errors ? 1 : 0);
