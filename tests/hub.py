"""A hub on this machine: real HTTP, the answers of huggingface.co that its client asks for, repositories as folders."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories in `root/OWNER/REPO`; `asked` lists what was asked for, as METHOD and path."""

    root: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # byte at which each download began
    gated: set[str] = field(default_factory=set)
    break_after: int | None = None  # bytes of a file's content after which the connection is closed, once
    goes_away: bool = False  # with that connection
    is_down: bool = False  # every request is refused
    lies: dict[str, str] = field(default_factory=dict)  # sha256 that it claims of a file, by its name

    def put(self, repository: str) -> Path:
        folder = self.root / repository
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def downloads(self) -> list[str]:
        return [line.partition("/resolve/")[0].removeprefix("GET /") + line.partition(COMMIT)[2]
                for line in self.asked if line.startswith("GET") and "/resolve/" in line]  # fmt: skip


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Serves a folder of repositories until the end."""
    hub = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body):
            path = unquote(urlsplit(self.path).path).strip("/")
            hub.asked.append(f"{self.command} /{path}")
            parts = path.split("/")
            if hub.is_down:
                self.refuse(404 if parts[0] == "api" else 500, "")
                return
            if parts[0] == "api":
                self.about("/".join(parts[2:4]), parts[4:])
            elif len(parts) > 4 and parts[2] == "resolve":
                self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
            else:
                self.refuse(404, "EntryNotFound")

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def known(self, repository, revision):
            if not (root / repository).is_dir():
                return self.refuse(404, "RepoNotFound")
            if revision not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            return True

        def about(self, repository, rest):
            if not self.known(repository, rest[1] if len(rest) > 1 else "main"):
                return
            files = sorted(path for path in (root / repository).rglob("*") if path.is_file())
            rows = [(path.relative_to(root / repository).as_posix(), path.stat().st_size, path) for path in files]
            content = {
                "id": repository, "sha": COMMIT, "private": False, "downloads": 0, "likes": 0, "tags": [],
                "cardData": {"license": "apache-2.0"},
                "siblings": [{"rfilename": name, "size": size, **self.lfs(path)} for name, size, path in rows],
            }  # fmt: skip
            if rest and rest[0] == "tree":
                content = [{"type": "file", "path": name, "size": size, "oid": "0"} for name, size, _ in rows]
            text = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def lfs(self, path):
            if path.suffix not in (".safetensors", ".pt", ".bin", ".ckpt"):
                return {}
            digest = hub.lies.get(path.name) or hashlib.sha256(path.read_bytes()).hexdigest()
            return {"lfs": {"size": path.stat().st_size, "sha256": digest, "pointerSize": 1}}

        def file(self, repository, revision, name, body):
            if not self.known(repository, revision):
                return
            if repository in hub.gated:
                self.refuse(403, "GatedRepo")
                return
            path = root / repository / name
            if not path.is_file():
                self.refuse(404, "EntryNotFound")
                return
            content = path.read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not body:
                return
            hub.starts.append(start)
            if hub.break_after is not None and len(content) > hub.break_after:
                self.wfile.write(content[start : hub.break_after])
                hub.break_after, hub.is_down = None, hub.goes_away
                self.close_connection = True
                return
            self.wfile.write(content[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def reaching(hub: Hub, cache: Path) -> Iterator[None]:
    """Lets the hub's client reach a hub of `serving`, and keeps what it fetches in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr("huggingface_hub.hf_api.api.endpoint", hub.url)  # made when that module was first imported
        patch.setattr("transformers.utils.hub._hf_api", None)  # made at its first call
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setenv("XDG_CACHE_HOME", str(cache / "own"))
        patch.setattr("huggingface_hub.utils._http._DEFAULT_RETRY_ON_STATUS_CODES", (), raising=False)
        yield
