"""What `ssh://[user@]host[:port][/directory]` means. ssh(1) knows the rest: keys, aliases and jump hosts are its user's own."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from ..base.errors import UsageError

WORD = re.compile(r"ssh://(?P<login>[A-Za-z0-9_.@-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?(?P<directory>/.*)?")
COMMAND_VARIABLE = "FARWRITE_SSH"


@dataclass(frozen=True)
class FarHost:
    """Where the far site is."""

    word: str
    login: str  # user@host or an alias of ssh's configuration
    port: int | None
    directory: str  # of the far site's files; empty: where ssh arrives

    def ssh(self, *options: str) -> list[str]:
        """The words that run ssh to there. FARWRITE_SSH names another ssh, or one with options."""
        port = ["-p", str(self.port)] if self.port else []
        # A question would be put on a terminal that nobody looks at while a run goes on.
        return [*shlex.split(os.environ.get(COMMAND_VARIABLE, "ssh")), "-o", "BatchMode=yes", *port, *options, self.login]


def far_host(word: str, option: str = "--far") -> FarHost:
    """The place that a word names; UsageError when it names none."""
    match = WORD.fullmatch(word)
    if match is None or match["login"].startswith("-"):
        raise UsageError(f'{option}: "{word}" is not a place such as ssh://host, ssh://me@host:2222/var/tmp.')
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise UsageError(f"{option}: {port} is no port: 1 to 65535.")
    return FarHost(word, match["login"].strip("[]"), port, match["directory"] or "")
