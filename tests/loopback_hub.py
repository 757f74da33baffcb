"""A small Hugging Face Hub on this machine: models are made, filled in one commit and fetched, as its client asks for it."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

REVISION = "0" * 39 + "1"
TOKEN = "hf_of_this_test"


class Hub(ThreadingHTTPServer):
    """Hold files by repository, and what was asked for; ``trouble`` is a part of a path, and what it answers (0: it breaks off)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.repositories, self.uploads, self.asked, self.trouble = {}, {}, [], ("", None)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # the client has gone


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        length = headers.pop("Content_Length", str(len(data)))
        for name, value in {"Content-Length": length, "X-Repo-Commit": REVISION, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def begins_with_trouble(self, path):
        start, status = self.server.trouble
        if status is None or start not in path:
            return False
        if status == 0:
            self.close_connection = True
            self.connection.shutdown(2)
        else:
            self.answer(status, {"error": "so it is"})
        return True

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while length := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        path, body = unquote(urlparse(self.path).path), self.body()
        self.server.asked.append(path)
        if self.begins_with_trouble(path):
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(
                401,
                {"error": "Invalid username or password."},
                X_Error_Message="Invalid credentials in Authorization header",
            )
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.repositories
            self.server.repositories.setdefault(name, {})
            self.answer(409 if known else 200, {"url": f"{self.server.address}/{name}", "error": "you have it"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self.answer(200, {"files": [self.mode(each) for each in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            self.server.repositories[name] |= dict(self.committed(body))
            self.answer(200, {"commitUrl": f"{self.server.address}/{name}/commit/{REVISION}", "commitOid": REVISION})
        else:
            self.answer(404, {"error": "no such path"})

    def do_PUT(self):
        self.server.uploads[urlparse(self.path).path.rpartition("/")[2]] = self.body()
        if not self.begins_with_trouble(self.path):
            self.answer(200)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(path)
        if self.begins_with_trouble(path):
            return
        name, _, rest = path.strip("/").partition("/resolve/")
        files = self.server.repositories.get(name)
        file = rest.partition("/")[2]
        if path.startswith("/api/models/") and "/tree/" in path:
            files = self.server.repositories[path.removeprefix("/api/models/").partition("/tree/")[0]]
            self.answer(200, [{"type": "file", "path": each, "size": 1, "oid": REVISION} for each in files])
        elif path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            known = name in self.server.repositories
            self.answer(
                200 if known else 404, {"id": name, "sha": REVISION, "siblings": []}, **no_code(known, "RepoNotFound")
            )
        elif files is None or file not in files:
            self.answer(404, b"", X_Error_Code="RepoNotFound" if files is None else "EntryNotFound")
        else:
            data = files[file]
            data = data if isinstance(data, bytes) else data.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            if self.command == "HEAD":
                self.answer(200, b"", ETag=etag, Content_Length=str(len(data)))
            else:
                self.answer(200, data, ETag=etag)

    def mode(self, file):
        large = file["path"].endswith((".safetensors", ".png"))
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def committed(self, body):
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                yield value["path"], base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                yield value["path"], self.server.uploads[value["oid"]]


def no_code(known, code):
    return {} if known else {"X_Error_Code": code}


@contextmanager
def loopback_hub(monkeypatch, cache):
    """Run a hub, and let the client in this process speak to it, without delay between its tries, and keep files in ``cache``."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name, value in (("ENDPOINT", hub.address), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
