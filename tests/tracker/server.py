"""A stand-in for W&B's server: as much as ``wandb sync`` asks for, and what it sent."""

import contextlib
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Wandb:
    """``lines``: the history of each run, by id, as it would stand on the server: what is sent replaces the lines from its offset on."""

    def __init__(self):
        self.lines, self.resumed = {}, []

    def answer(self, path, text):
        if "file_stream" in path:
            run = path.split("/")[-2]
            for name, sent in (json.loads(text).get("files") or {}).items():
                if "history" in name:
                    kept = self.lines.setdefault(run, [])
                    kept[sent["offset"] :] = [json.loads(line) for line in sent["content"]]
            return {}
        if "graphql" not in path:
            return {}
        asked = json.loads(text)
        name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
        run = asked.get("variables", {}).get("name")
        if name == "RunResumeStatus":
            self.resumed.append(run)
            return {"data": {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}, "bucket": self._bucket(run)}}}
        if name == "UpsertBucket":
            project = {"id": "P", "name": "p", "entity": {"id": "E", "name": "e"}}
            bucket = {"id": "B", "name": run, "displayName": run, "description": "", "config": "{}", "sweepName": "", "project": project}
            self.lines.setdefault(run, [])
            return {"data": {"upsertBucket": {"bucket": bucket | {"historyLineCount": len(self.lines[run])}, "inserted": True}}}
        if "iewer" in name or "Server" in name:
            viewer = {"id": "V", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}, "email": "e"}
            return {"data": {"viewer": viewer, "serverInfo": {"cliVersionInfo": {"max_cli_version": "9"}, "features": []}}}
        return {"data": None, "errors": [{"message": f"unknown {name}"}]}

    def _bucket(self, run):
        if run not in self.lines:
            return None
        tail = json.dumps([json.dumps(line) for line in self.lines[run][-1:]])
        counts = {"historyLineCount": len(self.lines[run]), "eventsLineCount": 0, "logLineCount": 0}
        rest = {"eventsTail": "[]", "summaryMetrics": "{}", "config": "{}", "tags": [], "wandbConfig": '{"t": 1}'}
        return {"id": "B", "name": run, "displayName": run, "historyTail": tail, **counts, **rest}


@contextlib.contextmanager
def served():
    """(what the server knows, its address) while the context lasts."""
    wandb = Wandb()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def _answer(self):
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                data = gzip.decompress(data)
            reply = json.dumps(wandb.answer(self.path, data.decode("utf-8", "replace"))).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = do_PUT = _answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield wandb, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
