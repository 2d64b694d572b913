"""A small server on the loopback interface that speaks as much of the Hugging Face Hub's API as its client needs.

Files of models lie behind a redirect with the hash and size of what is behind it, as the Hub's large files do; they can
be had in parts, and a connection can be told to break.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

import ssd_zoo

LARGE = (".safetensors", ".pth")


@dataclass
class Repo:
    """Commits, newest last: hash and files; and what points at them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        merged = {**self.files(branch), **files}
        digest = hashlib.sha1(f"{len(self.commits)} {sorted(merged)}".encode()).hexdigest()
        self.commits[digest] = merged
        self.branches[branch] = digest
        return digest

    def files(self, revision: str) -> dict[str, bytes]:
        return self.commits.get(self.branches.get(revision, revision), {})


class Hub:
    """What the server holds, and what it was asked for."""

    token = "hf_loopback"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.sent: int = 0
        self.break_after: list[int] = []
        # Called before each answer with a large file; whether it heeds the range.
        self.heeds_ranges: Callable[[], bool] = lambda: True
        self.endpoint = ""
        # Another host, as the Hub's store of large files is.
        self.elsewhere = ""

    def large_file(self, digest: str) -> bytes | None:
        contents = [data for repo in self.repos.values() for files in repo.commits.values() for data in files.values()]
        return next((data for data in contents if hashlib.sha256(data).hexdigest() == digest), None)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub.elsewhere = hub.endpoint.replace("127.0.0.1", "localhost")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return method(self, **match.groupdict())
        return self.fail(404, "EntryNotFound")

    def send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.break_after and len(data) > self.hub.break_after[0]:
            data = data[: self.hub.break_after.pop(0)]
            self.close_connection = True
        self.hub.sent += len(data)
        self.wfile.write(data)

    def json(self, value: Any, **headers: str) -> None:
        self.send(json.dumps(value).encode(), Content_Type="application/json", **headers)

    def fail(self, status: int, code: str) -> None:
        self.send(b"", status, X_Error_Code=code, X_Error_Message=code)

    def found(self, repo: str, revision: str = "main") -> tuple[Repo, str] | None:
        """Gives a repository and a commit, or answers why not."""
        kept = self.hub.repos.get(repo)
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if kept is None or (kept.private and not allowed):
            self.fail(404 if allowed else 401, "RepoNotFound")
        elif kept.gated:
            self.fail(403, "GatedRepo")
        elif revision not in kept.branches and revision not in kept.commits:
            self.fail(404, "RevisionNotFound")
        else:
            return kept, kept.branches.get(revision, revision)
        return None

    def resolve(self, repo: str, revision: str, file: str) -> None:
        found = self.found(repo, revision)
        if found is None:
            return
        kept, commit = found
        data = kept.commits[commit].get(file)
        if data is None:
            self.send(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif file.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            headers = {"X_Repo_Commit": commit, "X_Linked_Etag": f'"{digest}"', "X_Linked_Size": str(len(data))}
            self.send(b"", 302, Location=f"{self.hub.elsewhere}/large/{digest}", **headers)
        else:
            self.send(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)

    def large(self, digest: str) -> None:
        data = self.hub.large_file(digest) or b""
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {"ETag": f'"{digest}"', "Accept_Ranges": "bytes"}
        if not self.hub.heeds_ranges() or not ranged:
            return self.send(data, **headers)
        start, stop = int(ranged[1]), min(int(ranged[2] or len(data) - 1), len(data) - 1)
        headers["Content_Range"] = f"bytes {start}-{stop}/{len(data)}"
        return self.send(data[start : stop + 1], 206, **headers)

    def info(self, repo: str, revision: str = "main") -> None:
        found = self.found(repo, revision)
        if found:
            kept, commit = found
            siblings = [{"rfilename": file} for file in kept.commits[commit]]
            self.json({"id": repo, "sha": commit, "private": kept.private, "siblings": siblings, "tags": []})

    def paths(self, repo: str, revision: str) -> None:
        found = self.found(repo, revision)
        if found:
            wanted = json.loads(self.body)["paths"]
            files = found[0].commits[found[1]]
            self.json([self.entry(file, files[file]) for file in wanted if file in files])

    def tree(self, repo: str, revision: str) -> None:
        found = self.found(repo, revision)
        if found:
            self.json([self.entry(file, data) for file, data in found[0].commits[found[1]].items()])

    @staticmethod
    def entry(file: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        lfs = {"oid": digest, "size": len(data), "pointerSize": 134}
        return {"type": "file", "path": file, "size": len(data), "oid": digest[:40], "lfs": lfs}

    def whoami(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.fail(401, "")
        return self.json({"type": "user", "name": "owner", "orgs": [], "auth": {"type": "access_token"}})

    def create(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.fail(401, "")
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        if name in self.hub.repos:
            return self.send(json.dumps({"url": f"{self.hub.endpoint}/{name}"}).encode(), 409)
        self.hub.repos[name] = Repo(private=asked.get("private") or asked.get("visibility") == "private")
        self.hub.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def branch(self, repo: str, revision: str) -> None:
        found = self.found(repo)
        if found and revision not in found[0].branches:
            found[0].branches[revision] = found[1]
            self.json({})
        elif found:
            self.fail(409, "")

    def preupload(self, repo: str, revision: str) -> None:
        files = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [{"path": f, "uploadMode": "lfs" if f.endswith(LARGE) else "regular"} for f in files]
        self.json({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def batch(self, repo: str) -> None:
        objects = json.loads(self.body)["objects"]
        actions = [{"upload": {"href": f"{self.hub.endpoint}/upload/{item['oid']}"}} for item in objects]
        self.json(
            {"transfer": "basic", "objects": [{**item, "actions": a} for item, a in zip(objects, actions, strict=True)]}
        )

    def upload(self, digest: str) -> None:
        self.hub.uploads[digest] = self.body
        self.send(b"")

    def commit(self, repo: str, revision: str) -> None:
        found = self.found(repo, revision)
        if not found:
            return
        files = {}
        for line in self.body.splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            elif row["key"] == "lfsFile":
                files[row["value"]["path"]] = self.hub.uploads[row["value"]["oid"]]
        digest = found[0].commit(files, revision)
        url = f"{self.hub.endpoint}/{repo}/commit/{digest}"
        self.json({"success": True, "commitOid": digest, "commitUrl": url, "hookOutput": ""})

    def yaml(self) -> None:
        self.json({"errors": [], "warnings": []})


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES = [
    ("/api/whoami-v2", _Handler.whoami),
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.yaml),
    (rf"/api/models/{_REPO}/revision/(?P<revision>\w+)", _Handler.info),
    (rf"/api/models/{_REPO}/paths-info/(?P<revision>\w+)", _Handler.paths),
    (rf"/api/models/{_REPO}/tree/(?P<revision>\w+)", _Handler.tree),
    (rf"/api/models/{_REPO}/preupload/(?P<revision>\w+)", _Handler.preupload),
    (rf"/api/models/{_REPO}/commit/(?P<revision>\w+)", _Handler.commit),
    (rf"/api/models/{_REPO}/branch/(?P<revision>\w+)", _Handler.branch),
    (rf"/api/models/{_REPO}", _Handler.info),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/upload/(?P<digest>\w+)", _Handler.upload),
    (r"/large/(?P<digest>\w+)", _Handler.large),
    (rf"/{_REPO}/resolve/(?P<revision>\w+)/(?P<file>.+)", _Handler.resolve),
]


def child(code, environment, connection):
    """Runs code in a process that has not imported the Hub's client yet, and gives what it prints, or its error."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(code, {"ssd_zoo": ssd_zoo})
        connection.send(output.getvalue().strip())
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
