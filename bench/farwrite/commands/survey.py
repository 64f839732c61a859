"""`farwrite survey`: what a link over a distance delivers on this machine, against what was asked."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, EXIT_UNFIT
from .flags import Quiet, Verbose
from .output import console, print_document, printing, refuse_both

TABLE = 'title = "survey"\n[[cell]]\nname = "survey"\nprotocols = ["C"]\n'


def survey(
    *,
    miles: float = 150.0,
    route: float = 1.0,
    rate: str | None = None,
    loss: str | None = None,
    jitter: str | None = None,
    link: Literal["auto", "netem", "ferry", "relay"] = "auto",
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    packets: int = 20_000,
    json: bool = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Build two sites at a distance, and prove what joins them: round trip, each direction, loss, order, rate.

    Exit code 0 when all that was asked is delivered, 6 when it is not.

    Parameters
    ----------
    miles
        Straight line between the sites.
    route
        Glass over straight line: 1.3 on the best conduits, 2.1 as a rule of thumb.
    rate
        Of both directions, such as 10gbit or "100 Mbit/s".
    loss
        Of both directions, such as "0.01 %".
    jitter
        Of both directions, such as "0.1 ms".
    link
        How the distance is emulated.
    set_
        Anything else of a profile's [link] table, such as link.homeward.loss="1 %"; may be repeated.
    packets
        Datagrams sent in each direction.
    json
        Print the proof as a document.
    verbose
        Say on stderr how the distance is emulated, what keeps the processors awake, and why.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..workload.profile import parse

    refuse_both(verbose, quiet)
    changes = [f"distance.miles=[{miles}]", f"distance.route_factor={route}", f'lab.link="{link}"', *(set_ or [])]
    changes += [f'link.{key}="{value}"' for key, value in (("rate", rate), ("loss", loss), ("jitter", jitter)) if value]
    profile = parse(TABLE, "survey", changes)

    # Wrong words have been refused by now; what follows takes a second to load.
    from ..experiment.compilation import compile_link
    from ..progress import bar

    with bar(verbose, quiet) as progress:
        compile_link(progress)
        from ..base.physics import rtt_ns_of
        from ..lab.lab import LabSpec, open_lab  # Not before: a kernel is compiled where its module is imported.
        from ..lab.proof import prove

        spec = LabSpec(
            link=profile.lab.link, near=None, far=None, journal_bytes=16 << 20, volume_bytes=16 << 20, congestion="cubic",
            link_spec=profile.link,
        )  # fmt: skip
        progress.doing("opening the lab")
        with open_lab(spec) as lab:
            if verbose:
                progress.say(f"link {lab.choice.kind}: {lab.choice.reason}")
                progress.say(f"keep_awake {lab.awake.chosen}: {lab.awake.reason}")
            progress.doing(f"surveying {miles:g} miles, {packets} packets each way")
            proof = prove(lab, rtt_ns_of(miles, route), miles, route, packets)
    with printing():
        if json:
            print_document(proof)
        else:
            from ..report.survey import show_proof

            show_proof(proof, console())
    return EXIT_UNFIT if proof.refusals else EXIT_DONE
