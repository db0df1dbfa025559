"""Generates what follows from elsewhere: the table of README.md, and what values.schema.json says of settings.

Guarantees: a value of values.yaml without a comment that begins with "--" ends with an error, so the table is whole.
    With --check nothing is written; exit code 1 says that a file is stale.
Leaves to the caller: the rest of both files, which people write.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kvservice.config import SETTINGS
from kvservice.config_rows import Setting

CHART = Path(__file__).resolve().parent
TABLE_BEGINS = "<!-- values: written by generate.py -->\n"
TABLE_ENDS = "<!-- end of values -->\n"
# The chart says these itself, from other values.
OWNED = {
    "name",
    "data_dir",
    "initial_cluster",
    "join",
    "requirepass",
    "protected_mode",
    "cluster_secret",
    "shutdown_delay_seconds",
    "shutdown_timeout_seconds",
}
OWNED_ENDINGS = ("_addr",)
# Where certificates lie follows from peerTls.existingSecret, which the chart mounts.
FILES = ("peer_tls_cert", "peer_tls_key", "peer_tls_ca")
# Whole numbers beyond this lose digits on their way through YAML's floats.
EXACT_MAX = 2**53 - 1


def rows_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield the path of every commented value and its comment, in order. Raises ValueError for one without."""
    path: list[tuple[int, str]] = []
    comment = ""
    commented_depth: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if (found := re.fullmatch(r"# -- (.+)", line.strip())) is not None:
            comment = found[1]
        elif (key := re.fullmatch(r"([A-Za-z]\w*):(.*)", line.strip())) is not None:
            if commented_depth is not None and indent > commented_depth:
                continue  # the inside of a value that has its row
            commented_depth = None
            path = [*(part for part in path if part[0] < indent), (indent, key[1])]
            if comment:
                yield ".".join(name for _, name in path), comment
                comment, commented_depth = "", indent
            elif key[2].strip():
                raise ValueError(f"values.yaml: {line.strip()!r} has no comment")


def table(text: str) -> str:
    """Return the values as a table of Markdown."""
    values = yaml.safe_load(text)
    lines = ["| value | default | means |", "|---|---|---|"]
    for path, comment in rows_of(text):
        value: Any = values
        for name in path.split("."):
            value = value[name]
        written = json.dumps(value, ensure_ascii=False).replace("|", "\\|")
        lines.append(f"| `{path}` | `{written}` | {comment.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def schema_of(setting: Setting) -> dict[str, Any]:
    """Return the JSON schema of one setting."""
    described = {"description": setting.doc}
    match setting.kind:
        case "switch":
            return {"type": "boolean", **described}
        case "whole":
            bounds = {"minimum": setting.least, "maximum": setting.most}
            kept = {name: max(-EXACT_MAX, min(EXACT_MAX, bound)) for name, bound in bounds.items() if bound is not None}
            return {"type": "integer", **kept, **described}
        case "size":
            return {"type": ["string", "integer"], "pattern": "^[0-9]+[kKmMgG]?[bB]?$", "minimum": 0, **described}
        case "choice":
            return {"type": "string", "enum": list(setting.choices), **described}
    return {"type": "string", **described}


def settings_schema() -> dict[str, Any]:
    """Return the properties of `settings`: every setting of a node that the chart does not say itself."""
    return {
        setting.field: schema_of(setting)
        for setting in SETTINGS.values()
        if setting.field not in OWNED and not setting.field.endswith(OWNED_ENDINGS) and setting.field not in FILES
    }


def generated() -> dict[Path, str]:
    """Return the files as they should be."""
    schema_file, readme_file = CHART / "values.schema.json", CHART / "README.md"
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    schema["properties"]["settings"]["properties"] = settings_schema()
    readme = readme_file.read_text(encoding="utf-8")
    before, begins, rest = readme.partition(TABLE_BEGINS)
    _, ends, after = rest.partition(TABLE_ENDS)
    if not begins or not ends:
        raise ValueError("README.md has no place for the table")
    filled = before + begins + table((CHART / "values.yaml").read_text(encoding="utf-8")) + ends + after
    return {schema_file: json.dumps(schema, indent=2, ensure_ascii=False) + "\n", readme_file: filled}


def main() -> None:
    """Write both files, or tell what is stale."""
    parser = argparse.ArgumentParser(description="Generate the README table and the schema of settings.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is stale")
    arguments = parser.parse_args()
    is_stale = False
    for file, text in generated().items():
        was = file.read_text(encoding="utf-8")
        if was == text:
            continue
        is_stale = True
        if arguments.check:
            difference = difflib.unified_diff(was.splitlines(), text.splitlines(), file.name, "as generated", n=1)
            print("\n".join(difference))
        else:
            file.write_text(text, encoding="utf-8")
    if arguments.check and is_stale:
        sys.exit("stale: run make helm-docs")


if __name__ == "__main__":
    main()
