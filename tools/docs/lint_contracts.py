"""Checks docs/contracts without a network.

The schemas must be valid JSON Schema, asyncapi.yaml must be valid AsyncAPI, and each reference must
have a target. Rust tests check the examples and the code against the contracts. Another linter
checks openapi.yaml.
"""

import json
import sys
from pathlib import Path

import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.exceptions import best_match

HERE = Path(__file__).resolve().parent
CONTRACTS = HERE.parents[1] / "docs" / "contracts"
# The schema that AsyncAPI publishes, unchanged, with its licence beside it.
ASYNCAPI = HERE / "asyncapi-specs" / "3.0.0.json"


def read(path):
    return yaml.safe_load(path.read_text("utf-8")) if path.suffix == ".yaml" else json.loads(path.read_text("utf-8"))


def references(node):
    """Yields the target of each `$ref`."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = node.values()
    elif not isinstance(node, list):
        return
    for child in node:
        yield from references(child)


def has_target(path, reference):
    name, _, pointer = reference.partition("#")
    target = path.parent / name if name else path
    if not target.is_file():
        return False
    node = read(target)
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True


def flaws():
    schemas = sorted(CONTRACTS.rglob("*.schema.json"))
    asyncapi = CONTRACTS / "asyncapi.yaml"
    meta_schema = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    for validator, path in [*((meta_schema, path) for path in schemas), (Draft7Validator(read(ASYNCAPI)), asyncapi)]:
        if error := best_match(validator.iter_errors(read(path))):
            yield path, f"{error.json_path}: {error.message}"
    for path in [*schemas, asyncapi, CONTRACTS / "openapi.yaml"]:
        for reference in references(read(path)):
            if not has_target(path, reference):
                yield path, f"{reference} has no target"


if __name__ == "__main__":
    found = [f"{path.relative_to(CONTRACTS)}: {flaw}" for path, flaw in flaws()]
    if found:
        sys.exit("\n".join(found))
    print("docs/contracts: the schemas, asyncapi.yaml and all references are valid")
