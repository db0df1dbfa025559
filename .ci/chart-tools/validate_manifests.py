"""Hold manifests against the strict schemas of Kubernetes; runs in build/chart-tools/venv.

Reads a JSON array of manifests from standard input; the arguments are versions of Kubernetes. Prints a line for every
error, and how many pairs were looked at; exit code 1 if there is an error.
"""

import functools
import json
import sys

import kubernetes_validate
from kubernetes_validate import utils

# It reads a megabyte of definitions anew for every manifest.
utils.schema_contents = functools.cache(utils.schema_contents)


def main() -> None:
    """Validate every manifest against every version."""
    manifests, errors = json.load(sys.stdin), 0
    for version in sys.argv[1:]:
        for manifest in manifests:
            try:
                used = kubernetes_validate.validate(manifest, version, strict=True)
                problem = "" if used == version else f"there is no schema of {version}, only of {used}"
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                problem = error.message
            if problem:
                errors += 1
                print(f"{version}: {manifest['kind']}/{manifest['metadata']['name']}: {problem}")
    print(f"{len(manifests) * len(sys.argv[1:])} validated, {errors} errors")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
