"""Validates manifests strictly: built-in kinds against the schemas of Kubernetes, KVClusters against our CRD.

Kinds of other projects (the Prometheus operator's) have no schema here and are named, so that nothing is passed over
in silence. Ends with 1 when any document is wrong or when a file holds none.
"""

import argparse
import copy
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.37"
GROUP = "quorate.dev"
# Kinds whose schema is not ours to check.
FOREIGN_GROUPS = ("monitoring.coreos.com",)


def strict(schema):
    """The same schema, refusing every field that it does not name."""
    schema = copy.deepcopy(schema)

    def close(node):
        if isinstance(node, list):
            for item in node:
                close(item)
        elif isinstance(node, dict):
            open_ended = node.get("x-kubernetes-preserve-unknown-fields")
            if isinstance(node.get("properties"), dict) and not open_ended:
                node.setdefault("additionalProperties", False)
            if node.get("x-kubernetes-int-or-string"):
                node.pop("type", None)
            if node.pop("nullable", False) and isinstance(node.get("type"), str):
                node["type"] = [node["type"], "null"]
            for key, value in node.items():
                if key not in ("default", "enum", "x-kubernetes-validations"):
                    close(value)

    close(schema)
    # The API server adds its own schema of these three; metadata is checked by name only.
    for field in ("apiVersion", "kind", "metadata"):
        schema["properties"].setdefault(field, {})
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return schema


def crd_schemas(path):
    crd = yaml.safe_load(pathlib.Path(path).read_text())
    return {
        (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]): strict(
            version["schema"]["openAPIV3Schema"]
        )
        for version in crd["spec"]["versions"]
    }


def problem(document, own):
    """What is wrong with a document, as a sentence; None when nothing is."""
    api_version, kind = document.get("apiVersion", ""), document.get("kind", "")
    group = api_version.partition("/")[0]
    if group in FOREIGN_GROUPS:
        print(f"    {kind} of {group}: no schema here, not checked")
        return None
    if group == GROUP:
        schema = own.get((api_version, kind))
        if schema is None:
            return f"the CRD has no {kind} of {api_version}"
        errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
        return "; ".join(f"{error.json_path}: {error.message}" for error in errors) or None
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        path = "/".join(str(part) for part in getattr(error, "path", []))
        return f"{path}: {getattr(error, 'message', error)}"
    return None


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--crd", required=True)
    arguments.add_argument("files", nargs="+")
    arguments = arguments.parse_args()

    own = crd_schemas(arguments.crd)
    wrong = 0
    for file in arguments.files:
        documents = [document for document in yaml.safe_load_all(pathlib.Path(file).read_text()) if document]
        print(f"{file}: {len(documents)} documents")
        if not documents:
            wrong += 1
            print("    holds no document")
        for document in documents:
            found = problem(document, own)
            if found:
                wrong += 1
                name = document.get("metadata", {}).get("name")
                print(f"    {document.get('kind')} {name}: {found}")
    sys.exit(1 if wrong else 0)


main()
