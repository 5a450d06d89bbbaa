"""Python's xmlrpc.client on one side of a pipe: a line in, a line out, until the end of input.

    read HEX            XML of a call or reply -> JSON of what Python understood
    write JSON          {"method", "params"} or {"result"} or {"fault"} -> HEX of the XML that Python writes

Values in JSON are mapped as virtagent's JSON encoding maps them.
"""

import base64
import datetime
import json
import sys
import xmlrpc.client


def to_json(value):
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        date = f"{value.year:04}{value.month:02}{value.day:02}"
        return {"$dateTime": f"{date}T{value.hour:02}:{value.minute:02}:{value.second:02}"}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        members = {name: to_json(member) for name, member in value.items()}
        if len(members) == 1:
            return {"$" + name if name.startswith("$") else name: member for name, member in members.items()}
        return members
    return value


def from_json(value):
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if list(value) == ["$base64"]:
            return base64.b64decode(value["$base64"])
        if list(value) == ["$dateTime"]:
            text = value["$dateTime"]
            numbers = text[:4], text[4:6], text[6:8], text[9:11], text[12:14], text[15:17]
            return datetime.datetime(*map(int, numbers))
        if len(value) == 1:
            return {name.removeprefix("$"): from_json(member) for name, member in value.items()}
        return {name: from_json(member) for name, member in value.items()}
    return value


def read(xml):
    try:
        params, method = xmlrpc.client.loads(xml, use_builtin_types=True)
    except xmlrpc.client.Fault as fault:
        return {"fault": [fault.faultCode, fault.faultString]}
    if method is None:
        return {"result": to_json(params[0])}
    return {"method": method, "params": [to_json(param) for param in params]}


def write(what):
    if "fault" in what:
        return xmlrpc.client.dumps(xmlrpc.client.Fault(*what["fault"]))
    if "result" in what:
        return xmlrpc.client.dumps((from_json(what["result"]),), methodresponse=True, allow_none=True)
    params = tuple(from_json(param) for param in what["params"])
    return xmlrpc.client.dumps(params, what["method"], allow_none=True)


for line in sys.stdin:
    verb, argument = line.rstrip("\n").split(" ", 1)
    if verb == "read":
        print(json.dumps(read(bytes.fromhex(argument))), flush=True)
    else:
        print(write(json.loads(argument)).encode().hex(), flush=True)
