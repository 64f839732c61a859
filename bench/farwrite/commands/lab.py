"""`farwrite lab`: run any command at the near end of an emulated distance, and another one at the far end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError


def lab(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    miles: float | None = None,
    km: float | None = None,
    rtt: str | None = None,
    route: float = 1.0,
    rate: str | None = None,
    loss: str | None = None,
    jitter: str | None = None,
    link: Literal["auto", "netem", "ferry"] = "auto",
    far: str | None = None,
    wait_port: int | None = None,
    sites: Path | None = None,
    root: Annotated[bool, Parameter(negative="")] = False,
    accept_link_error: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a command with the network of a near site; a far site is an emulated distance away.

    Everything but the network is as it is: files, users, processes. The commands find the sites' addresses in NEAR and FAR, and
    where they are in FARWRITE_SITE. Without a command a shell is opened. Its exit code is ours; with it the lab ends, and
    everything that still runs in it.

    Parameters
    ----------
    command
        What to run at the near site, after "--".
    miles
        How far apart the sites are: from kernel to kernel, a packet takes as long as light does.
    km
        The same in kilometres.
    rtt
        The round trip of a ping that you measured and want to have here, such as "2 ms"; this host's own part is in it.
    route
        How much longer the glass is than the straight line.
    rate
        Bits per second in each direction, such as 1gbit.
    loss
        Share of packets lost in each direction, such as 0.01%.
    jitter
        Standard deviation of each direction's delay, such as "50 us".
    link
        How the distance is emulated.
    far
        What to run at the far site, a line for the shell. It is started first; what it prints goes to standard error. If it
        fails, the near command is sent SIGTERM.
    wait_port
        Start the near command only when the far one listens on this TCP port.
    sites
        A TOML file with several sites and the links between them, instead of a distance.
    root
        Without root: be root in the sites, not yourself, to change their network.
    accept_link_error
        Go on although a link does not deliver what was asked; otherwise that ends with exit code 6.
    """
    from ..lab.layout import NEAR, read, two_sites
    from ..physics import distance

    if sites is None:
        if miles is None and km is None and rtt is None:
            raise UsageError("How far away is the far site? Say --miles 150, --km 240 or --rtt '2 ms'.")
        layout = two_sites(distance(miles, km=km, rtt=rtt, route_factor=route), rate, loss, jitter, far)
    elif any(given is not None for given in (miles, km, rtt, rate, loss, jitter, far)) or route != 1.0:
        raise UsageError("--sites says how far everything is and what runs there; it goes with no other word about a link.")
    else:
        layout = read(sites)
    if wait_port is not None and not 0 < wait_port < 65536:
        raise UsageError("--wait-port is a TCP port: 1 to 65535.")
    words = list(command) or layout.commands.get(NEAR) or [os.environ.get("SHELL", "/bin/sh")]

    from ..lab.session import open_session

    return open_session(layout, link, words, wait_port, root, accept_link_error)
