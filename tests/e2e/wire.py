"""Python's own XML-RPC, in frames made by hand, over the host's channel: PORT FILE [USER].

Says "ok" at its end; an assertion that fails ends it.
"""

import socket
import sys
import xmlrpc.client

PARSE, INVALID_REQUEST, NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
NO_SUCH_USER, NO_SESSION, OS_ERROR = -32001, -32002, -32010


class Channel:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.number = 0

    def send(self, body, tag, username=None):
        heads = ["POST /RPC2 HTTP/1.1", "Content-Type: text/xml", f"Content-Length: {len(body)}"]
        heads.append(f"X-Virtagent-Client-Tag: {tag}")
        if username is not None:
            heads.append(f"X-Virtagent-Username: {username}")
        self.socket.sendall(b"\xff" + "\r\n".join(heads).encode() + b"\r\n\r\n" + body)

    def receive(self):
        while self.file.read(1) != b"\xff":
            pass
        first = self.file.readline()
        heads = {}
        while (line := self.file.readline()) != b"\r\n":
            name, value = line.decode().rstrip("\r\n").split(": ", 1)
            heads[name] = value
        return first, heads, self.file.read(int(heads["Content-Length"]))

    def exchange(self, body, username=None):
        self.number += 1
        tag = f"python{self.number:010}"
        self.send(body, tag, username)
        while True:
            first, heads, answer = self.receive()
            if first.startswith(b"HTTP") and heads["X-Virtagent-Client-Tag"] == tag:
                assert heads["Content-Type"] == "text/xml", heads
                assert heads.get("X-Virtagent-Username") == username, heads
                return answer

    def call(self, method, *params, username=None):
        body = xmlrpc.client.dumps(params, method, allow_none=True).encode()
        (result,), _ = xmlrpc.client.loads(self.exchange(body, username), use_builtin_types=True)
        return result


def fault(code, ask):
    try:
        result = ask()
    except xmlrpc.client.Fault as error:
        assert error.faultCode == code, error
        assert error.faultString and "\n" not in error.faultString, error
    else:
        raise AssertionError(f"no fault {code}: {result!r}")


port, path, *user = sys.argv[1:]
content = open(path, "rb").read()
guest = Channel(port)

assert guest.call("va.ping") == "pong"
assert guest.call("va.ping", 1, "two", [3]) == "pong"
capabilities = guest.call("va.capabilities")
assert capabilities["version"] == "1.0", capabilities
assert capabilities["encodings"] == ["xml", "json", "cbor"], capabilities
assert capabilities["limits"]["body"] == 2 << 20, capabilities
assert set(guest.call("system.listMethods")) == set(capabilities["methods"])
assert guest.call("va.getfile", path) == content
assert guest.call("va.getfile", {"path": path}) == content

multicall = guest.call("system.multicall", [
    {"methodName": "va.ping", "params": []},
    {"methodName": "no.such", "params": []},
    {"methodName": "va.getfile", "params": [path]},
    {"methodName": "system.multicall", "params": [[]]},
])
assert multicall[0] == ["pong"] and multicall[2] == [content], multicall
assert multicall[1]["faultCode"] == NOT_FOUND, multicall
assert multicall[3]["faultCode"] == INVALID_PARAMS, multicall

fault(NOT_FOUND, lambda: guest.call("no.such"))
fault(NOT_FOUND, lambda: guest.call("power.cancel_shutdown"))
fault(INVALID_PARAMS, lambda: guest.call("va.getfile"))
fault(INVALID_PARAMS, lambda: guest.call("va.getfile", 7))
fault(INVALID_PARAMS, lambda: guest.call("va.getfile", path, "more"))
fault(OS_ERROR, lambda: guest.call("va.getfile", path + ".missing"))
fault(NO_SUCH_USER, lambda: guest.call("va.ping", username="no-such-user"))
fault(NO_SESSION, lambda: guest.call("va.ping", username="daemon"))
fault(PARSE, lambda: xmlrpc.client.loads(guest.exchange(b"<methodCall>")))
fault(INVALID_REQUEST, lambda: xmlrpc.client.loads(guest.exchange(b"<?xml version='1.0'?><nonsense/>")))

for name in user:
    assert guest.call("va.ping", username=name) == "pong"
    done = guest.call("exec.run", {"argv": ["id", "-un"]}, username=name)
    assert done["exit_code"] == 0 and done["stdout"] == name.encode() + b"\n", done
    done = guest.call("exec.run", ["cat"], None, None, None, None, None, bytes(range(256)), username=name)
    assert done["stdout"] == bytes(range(256)), done
    fault(NOT_FOUND, lambda: guest.call("session.list", username=name))
    fault(OS_ERROR, lambda: guest.call("file.stat", "/root/x", username=name))

print("ok")
