"""Packages of Debian made on the spot, in a repository on this disk that apt takes for the only one there is."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

_STANZA = """Package: {name}
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.org>
Installed-Size: 7
Description: made by a test
"""
_CONFIG = """Dir "{folder}/apt";
Dir::State "{folder}/apt/state";
Dir::State::status "{folder}/apt/status";
Dir::Cache "{folder}/apt/cache";
Dir::Etc "{folder}/apt/etc";
Dir::Etc::sourcelist "{folder}/apt/etc/sources.list";
Dir::Log "{folder}/apt/log";
APT::Sandbox::User "";
"""


class Repository:
    """A folder with packages, and the configuration of an apt that knows no other.

    config  for APT_CONFIG
    """

    def __init__(self, folder: Path) -> None:
        self._debs, self._folder = folder / "debs", folder
        self._debs.mkdir()
        self.config = folder / "apt.conf"
        self.config.write_text(_CONFIG.format(folder=folder))
        for name in ("state/lists/partial", "cache/archives/partial", "etc", "log"):
            (folder / "apt" / name).mkdir(parents=True)
        (folder / "apt" / "status").write_text("")
        (folder / "apt" / "etc" / "sources.list").write_text(f"deb [trusted=yes] file:{self._debs} ./\n")

    def add(self, name: str, files: dict[str, bytes | str], version: str = "1.0-1") -> Path:
        """Put a package there, path -> bytes, or the target of a link; returns its .deb."""
        root = self._folder / "root" / f"{name}_{version}"
        stanza = _STANZA.format(name=name, version=version)
        for path, data in {"DEBIAN/control": stanza.encode(), **files}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, str):
                (root / path).symlink_to(data)
            else:
                (root / path).write_bytes(data)
        made = self._debs / f"{name}_{version}_all.deb"
        pack = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(made)]
        subprocess.run(pack, check=True, capture_output=True)
        with open(self._debs / "Packages", "a") as f:
            digest = hashlib.sha256(made.read_bytes()).hexdigest()
            f.write(f"{stanza}Filename: ./{made.name}\nSize: {made.stat().st_size}\nSHA256: {digest}\n\n")
        return made

    def update(self) -> None:
        """Have apt read the list."""
        environment = {"APT_CONFIG": str(self.config), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True, capture_output=True)
