"""Where the configuration files are: lrp's own, and the folders that a user names.

A user's folder is named by ``--config-dir my/conf`` or by ``hydra.searchpath=[file://my/conf]``. It holds options as lrp's own
folder does (``my/conf/scorer/nuclear.yaml``). The classes that they name may lie in any module on Python's path, in the folder
itself or beside it (``my/conf/nuclear.py``, ``my/nuclear.py``): both are put at the end of Python's path, so that nothing in
them hides a module of another package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent
CONF = next(
    (folder for folder in (_HERE.parent / "conf", _HERE / "conf") if (folder / "config.yaml").exists()), _HERE / "conf"
)  # a checkout, or an installed package

_named: list[Path] = []


def use_folders(folders: Iterable[str | Path]) -> None:
    """From now on, find options in these folders too, before those that were named earlier, and modules in them and beside them.

    Every process calls it with what Hydra found (``hydra.runtime.config_sources``), those that joblib starts too.
    """
    new = [folder for folder in dict.fromkeys(Path(folder).resolve() for folder in folders) if folder != CONF]
    for folder in new:
        sys.path += [str(place) for place in (folder, folder.parent) if str(place) not in sys.path]
    _named[:] = [*new, *(folder for folder in _named if folder not in new)]


def option_files(group: str) -> dict[str, Path]:
    """The file of each option of a group, by name; lrp's own come before those of other folders, as they do for Hydra."""
    files = {file.stem: file for folder in reversed((CONF, *_named)) for file in folder.glob(f"{group}/*.yaml")}
    return dict(sorted(files.items()))


def search_path(places: Sequence[str]) -> str:
    """The word that names these places on Hydra's command line."""
    quoted = [place if "://" in place else f"file://{Path(place).expanduser().resolve()}" for place in places]
    quoted = ["'" + place.replace("\\", "\\\\").replace("'", "\\'") + "'" for place in quoted]
    return f"hydra.searchpath=[{','.join(quoted)}]"
