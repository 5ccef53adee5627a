"""A stand-in for the Hugging Face Hub: those of its HTTP endpoints that pushing and loading a model use.

A repository is a list of commits in memory. Large files travel by LFS (batch, upload, pointer in the commit), small
ones in the commit itself, as on the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_" + "test" * 8
ORGANISATION = "acme"
LARGE = (".safetensors", ".pth", ".png")


@dataclass
class Repository:
    """Commits by hash, the newest last; each maps file names to contents."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    messages: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes], message: str) -> str:
        """Add a commit, and return its hash."""
        self.messages.append(message)
        digest = hashlib.sha1(repr((message, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[digest] = files
        return digest

    def resolve(self, revision: str) -> str | None:
        """The commit that a revision names."""
        return self.head if revision == "main" else revision if revision in self.commits else None


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Find the endpoint, and do what it does."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if status := self.server.refusal.get(f"{self.command} {path.rpartition('/')[2]}"):
            self.send({"error": "refused"}, status)
            return
        for command, pattern, endpoint in ENDPOINTS:
            if command == self.command and (match := re.fullmatch(pattern, path)):
                endpoint(self, **match.groupdict())
                return
        self.missing("EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 (http.server's names)

    def send(self, content: Any, status: int = 200, **headers: str) -> None:
        """Send JSON, or bytes as they are."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, code: str) -> None:
        """Say what is not there."""
        self.send({"error": code}, 404, X_Error_Code=code)

    def allowed(self) -> bool:
        """Whether the request has the token; it is refused otherwise."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.send({"error": "Invalid credentials in Authorization header"}, 401)
        return False

    def at(self, repository: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and the commit that the revision names; the request is answered where there is none."""
        found = self.server.repositories.get(repository)
        commit = found.resolve(revision) if found else None
        if found is None or commit is None:
            self.missing("RepoNotFound" if found is None else "RevisionNotFound")
            return None
        return found, commit

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay quiet."""

    # ---- endpoints ---------------------------------------------------------------------------------------------------

    def whoami(self) -> None:
        if self.allowed():
            self.send({"type": "user", "name": "somebody", "orgs": [{"name": ORGANISATION}]})

    def create(self) -> None:
        if not self.allowed():
            return
        wanted = json.loads(self.body)
        if wanted["organization"] != ORGANISATION:
            self.send({"error": "You don't have the rights"}, 403)
            return
        name = f"{wanted['organization']}/{wanted['name']}"
        existed = name in self.server.repositories
        self.server.repositories.setdefault(name, Repository())
        self.send({"url": f"{self.server.url}/{name}", "id": name}, 409 if existed else 200)

    def validate(self) -> None:
        metadata = yaml.safe_load(json.loads(self.body)["content"].split("---\n")[1])
        wanted = {"license": str, "language": list, "library_name": str, "pipeline_tag": str, "tags": list}
        errors = [{"message": key} for key, kind in wanted.items() if not isinstance(metadata.get(key), kind)]
        self.send({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, repository: str, revision: str) -> None:
        if not self.allowed() or (found := self.at(repository, revision)) is None:
            return
        present = found[0].commits[found[1]]
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": oid(file["path"], present[file["path"]]) if file["path"] in present else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.send({"files": files})

    def batch(self, repository: str) -> None:
        if not self.allowed():
            return
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.large:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/storage/{entry['oid']}"}}
        self.send({"transfer": "basic", "objects": objects})

    def store(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() == digest:
            self.server.large[digest] = self.body
        self.send({}, 200 if digest in self.server.large else 400)

    def commit(self, repository: str, revision: str) -> None:
        if not self.allowed() or (found := self.at(repository, revision)) is None:
            return
        (header, *operations) = (json.loads(line) for line in self.body.splitlines())
        files = dict(found[0].files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        digest = found[0].commit(files, header["value"]["summary"])
        self.send(
            {"commitUrl": f"{self.server.url}/{repository}/commit/{digest}", "commitOid": digest, "success": True}
        )

    def info(self, repository: str, revision: str = "main") -> None:
        if found := self.at(repository, revision):
            siblings = [{"rfilename": name} for name in found[0].commits[found[1]]]
            self.send({"id": repository, "sha": found[1], "siblings": siblings})

    def tree(self, repository: str, revision: str) -> None:
        if found := self.at(repository, revision):
            self.send([entry(name, data) for name, data in found[0].commits[found[1]].items()])

    def resolve(self, repository: str, revision: str, file: str) -> None:
        if (found := self.at(repository, revision)) is None:
            return
        files = found[0].commits[found[1]]
        if file not in files:
            self.missing("EntryNotFound")
            return
        self.send(files[file], ETag=f'"{oid(file, files[file])}"', X_Repo_Commit=found[1])


def oid(name: str, data: bytes) -> str:
    """What names a content: its sha256 where it travels by LFS, git's hash of the blob otherwise."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, Any]:
    """A file in a repository's tree."""
    digest = oid(name, data)
    large = {"lfs": {"oid": digest, "size": len(data), "pointerSize": 134}} if name.endswith(LARGE) else {}
    return {"type": "file", "path": name, "size": len(data), "oid": digest[:40], **large}


REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
ENDPOINTS: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", Answer.whoami),
    ("POST", "/api/repos/create", Answer.create),
    ("POST", "/api/validate-yaml", Answer.validate),
    ("POST", f"/api/models/{REPOSITORY}/preupload/{REVISION}", Answer.preupload),
    ("POST", rf"/{REPOSITORY}\.git/info/lfs/objects/batch", Answer.batch),
    ("PUT", "/storage/(?P<digest>[0-9a-f]{64})", Answer.store),
    ("POST", f"/api/models/{REPOSITORY}/commit/{REVISION}", Answer.commit),
    ("GET", f"/api/models/{REPOSITORY}", Answer.info),
    ("GET", f"/api/models/{REPOSITORY}/revision/{REVISION}", Answer.info),
    ("GET", f"/api/models/{REPOSITORY}/tree/{REVISION}", Answer.tree),
    ("HEAD", f"/{REPOSITORY}/resolve/{REVISION}/(?P<file>[^/]+)", Answer.resolve),
    ("GET", f"/{REPOSITORY}/resolve/{REVISION}/(?P<file>[^/]+)", Answer.resolve),
]


class Hub(ThreadingHTTPServer):
    """The server: its repositories by name, its large files, and the requests that it has seen.

    `refusal` makes an endpoint, named by its command and the last part of its path, answer with an error's status.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refusal: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub on a free port, gone after the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
