"""Compares the rights in the operator's own roles with those that the rendered chart gives its ServiceAccount.

Usage: compare_roles.py ROLES CHART. A right is a scope, an API group, a resource and a verb; whether one role or two give
it makes no difference, nor does a restriction to names. Ends with 1 when the two differ.
"""

import pathlib
import sys

import yaml


def documents(path):
    return [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]


def rights(roles):
    return {
        (role["kind"], group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def bound_roles(objects):
    """The roles that some binding of the chart names: those for people are bound by nobody here."""
    bound = {
        (item["roleRef"]["kind"], item["roleRef"]["name"]) for item in objects if item["kind"].endswith("RoleBinding")
    }
    return [item for item in objects if (item["kind"], item["metadata"]["name"]) in bound]


def main():
    needed = rights(documents(sys.argv[1]))
    given = rights(bound_roles(documents(sys.argv[2])))
    for right in sorted(needed - given):
        print("the chart does not give:", *right)
    for right in sorted(given - needed):
        print("the chart gives too much:", *right)
    print(f"{len(given)} rights")
    sys.exit(0 if needed == given and needed else 1)


main()
