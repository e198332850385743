"""libhivex (Debian's python3-hivex) driven by lines of JSON; run by /usr/bin/python3, which has it.

    {"dump": FILE}                            → {"name", "time", "values": [[name, type, hex]], "subkeys": […]}
    {"build": FILE, "from": FILE, "tree": …}  → {}   adds the subkeys and values of a tree of that form to the root

An answer is {"error": text} when libhivex refuses.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import hivex


def dump(hive: Any, node: int) -> dict[str, Any]:
    values = [(hive.value_key(value), *hive.value_value(value)) for value in hive.node_values(node)]
    return {
        "name": hive.node_name(node),
        "time": hive.node_timestamp(node),
        "values": [[name, kind, data.hex()] for name, kind, data in values],
        "subkeys": [dump(hive, child) for child in hive.node_children(node)],
    }


def build(hive: Any, node: int, tree: dict[str, Any]) -> None:
    values = [{"key": name, "t": kind, "value": bytes.fromhex(data)} for name, kind, data in tree["values"]]
    hive.node_set_values(node, values)
    for subkey in tree["subkeys"]:
        build(hive, hive.node_add_child(node, subkey["name"]), subkey)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "dump" in request:
        hive = hivex.Hivex(request["dump"])
        return dump(hive, hive.root())
    hive = hivex.Hivex(request["from"], write=True)
    build(hive, hive.root(), request["tree"])
    hive.commit(request["build"])
    return {}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except (RuntimeError, OSError) as error:
        result = {"error": str(error)}
    print(json.dumps(result), flush=True)
