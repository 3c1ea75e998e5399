"""Asks a node for everything that its OpenAPI document describes, and more, and compares the answers with it.

Runs schemathesis with the arguments that this gets; it teaches it to send lines of JSON.
"""

import schemathesis
from schemathesis.cli import schemathesis as command


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    return str(value).encode("utf-8", errors="replace")


command()
