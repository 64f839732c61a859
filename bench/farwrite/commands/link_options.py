"""The words that say what the link between near and far is to be: --miles 150, --rate 1gbit and their like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from ..base.errors import UsageError

if TYPE_CHECKING:
    from ..base.physics import Distance
    from ..lab.topology import Layout


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """What was typed of one link, unread.

    Attributes
    ----------
    miles
        How far apart the sites are, such as 150 or 80km: from kernel to kernel, a packet takes as long as light does.
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
    """

    miles: str | None = None
    km: float | None = None
    rtt: str | None = None
    route: float = 1.0
    rate: str | None = None
    loss: str | None = None
    jitter: str | None = None

    def layout(self, far: str | None) -> Layout:
        """Two sites with this link between them; `far` runs at the far one."""
        from ..lab.topology import two_sites

        return two_sites(self.distance(), self.rate, self.loss, self.jitter, far)

    def distance(self) -> Distance:
        """The distance asked for; --miles takes another unit too, as everywhere: 80km."""
        from ..base.physics import distance
        from ..base.units import KM_PER_MILE, distance_km

        if self.miles is None and self.km is None and self.rtt is None:
            raise UsageError("How far away is the far site? Say --miles 150, --km 240 or --rtt '2 ms'.")
        length = None
        if self.miles is not None:
            try:
                length = float(self.miles)
            except ValueError:
                length = distance_km(self.miles, "--miles") / KM_PER_MILE
        return distance(length, km=self.km, rtt=self.rtt, route_factor=self.route)


NOTHING_ASKED = LinkOptions()  # Nothing typed.


def load_link(verbose: bool, quiet: bool) -> None:
    """Compile what carries a link: before the lab forks, and not within the time limit of a site's first call."""
    from ..experiment.compilation import compile_link
    from ..progress import bar

    with bar(verbose, quiet) as progress:
        compile_link(progress)
