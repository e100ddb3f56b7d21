"""An offline run of W&B, read back from its log: records of wandb's own protobuf in the frames of a LevelDB log."""

import json
from pathlib import Path

BLOCK, HEADER = 32768, 7


def frames(data):
    """The records of a log: a frame has a checksum (4 bytes), its length (2) and its kind: whole, first, middle or last of a record."""
    at, record = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # nothing begins so late in a block
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):
            yield record
            record = b""


class OfflineRun:
    """What an offline run holds: ``run`` (project, name, group, tags ...), config, history (one dict a step), summary, metrics (with
    their x axes), artifacts (type, name, aliases, metadata and files) and media, which are files."""

    def __init__(self, folder):
        # optional: wandb
        from wandb.proto.wandb_internal_pb2 import Record

        self.folder = Path(folder)
        self.run, self.config, self.history, self.summary, self.x, self.artifacts, self.exit_code = None, {}, [], {}, {}, [], None
        (file,) = self.folder.glob("*.wandb")
        for data in frames(file.read_bytes()):
            record = Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                self.history.append({key: value for key, value in row.items() if not key.startswith("_") or key == "_step"})
            elif kind == "summary":
                self.summary |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
            elif kind == "metric" and record.metric.name:
                self.x[record.metric.name] = record.metric.step_metric
            elif kind == "artifact":
                self.artifacts.append(self._artifact(record.artifact))
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def _artifact(self, artifact):
        metadata = json.loads(artifact.metadata) if artifact.metadata else {}
        files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
        if artifact.manifest.manifest_file_path:  # written apart where there are many
            files |= {"": Path(artifact.manifest.manifest_file_path)}
        return {"type": artifact.type, "name": artifact.name, "aliases": list(artifact.aliases), "metadata": metadata, "files": files}

    def column(self, name):
        """The values of a metric, in order."""
        return [row[name] for row in self.history if name in row]

    def table(self, name):
        """The last table that was logged by this name: its rows as dicts."""
        place = self.column(f"{name}/path")[-1]
        written = json.loads((self.folder / "files" / place).read_text())
        return [dict(zip(written["columns"], row)) for row in written["data"]]


def offline_runs(folder):
    """The offline runs below a folder, in the order in which they began."""
    return [OfflineRun(path) for path in sorted(Path(folder).glob("wandb/offline-run-*"))]
