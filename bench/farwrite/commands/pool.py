"""`farwrite pool`: storage nodes at up to three sites, and the volumes that lie on them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from ..base.errors import EXIT_DONE, UsageError
from .examples import below
from .flags import Flag, Quiet, Verbose
from .link_options import NOTHING_ASKED, LinkOptions, load_link
from .options import bytes_of
from .output import print_document, printing, refuse_both

if TYPE_CHECKING:
    from ..experiment.pool.control import Answer, Figures, MoveFigures, Request
    from ..experiment.pool.document import StorageNode
    from ..experiment.pool.placement import Move
    from ..experiment.pool.server import PoolServer

NODE = re.compile(r"([^@=:]{1,80})@([^@=:]{1,80})=([^@=:]{1,40})(?::(.{1,4000}))?", re.DOTALL)
LOOK_S = 0.1
Nodes = Annotated[list[str], Parameter(name="--node", negative="", consume_multiple=False)]
Forgets = Annotated[list[str], Parameter(name="--forget-reservations", negative="", consume_multiple=False)]

pool = App(name="pool", help_epilogue=below("pool"))


@pool.command(help_epilogue=below("pool create"))
def create(directory: Path, *, node: Nodes, name: str | None = None, json: Flag = False) -> int:
    """Make a pool of storage nodes in a new directory. Nothing is served yet.

    Parameters
    ----------
    directory
        Where the pool is kept, and the nodes that name no directory of their own.
    node
        A node: NAME@SITE=SIZE, such as a@near=20g, or NAME@SITE=SIZE:DIR with its own directory; sites are near, far and third.
    name
        The pool's name; that of the directory unless said.
    json
        Print the pool as a document.
    """
    from ..experiment.pool.control import figures_of
    from ..experiment.pool.steps import create as make

    default = re.sub(r"[^a-z0-9_]", "", directory.absolute().name.lower())[:16].lstrip("0123456789_")
    made = make(directory, name or default or "pool", [node_of(one) for one in node])
    return show_pool(figures_of(made), json)


@pool.command(help_epilogue=below("pool show"))
def show(directory: Path, *, json: Flag = False) -> int:
    """Show a pool: what its nodes hold, have free and have promised, and where each volume's copies are.

    Parameters
    ----------
    directory
        The pool's directory.
    json
        Print a document.
    """
    from ..experiment.pool.control import Show

    answer = asked(directory, Show())
    if json:
        with printing():
            print_document(answer)
        return EXIT_DONE
    return show_pool(answer.pool, json)


# Longer than a function should be by its options and their help, which cyclopts reads from one signature; the body is not.
@pool.command(help_epilogue=below("pool serve"))
def serve(
    directory: Path, *, asked: LinkOptions = NOTHING_ASKED, sockets: Path | None = None, port: int | None = None,
    listen: str = "127.0.0.1", tls: Path | None = None, iscsi: int | None = None, chap: Path | None = None,
    forget_reservations: Forgets | None = None, latency_budget: str | None = None, metrics: int | None = None,
    link: Literal["auto", "netem", "ferry", "relay"] = "auto", accept_link_error: Flag = False, no_restart: Flag = False,
    json: Flag = False, verbose: Verbose = False, quiet: Quiet = False,
) -> int:  # fmt: skip
    """Serve every volume of a pool over NBD and iSCSI, its sites an emulated distance apart, until Ctrl-C.

    Each volume has a directory of sockets of its own, as that of farwrite serve. Volumes and nodes are made, changed and removed
    meanwhile with farwrite volume, farwrite migrate and farwrite pool. Ctrl-C, SIGTERM or a closed terminal ends it: what was
    taken is answered, and the exit code is 0.

    Parameters
    ----------
    directory
        The pool's directory.
    sockets
        Directory with one of sockets for each volume; a temporary one unless said.
    port
        Listen for NBD clients on TCP ports as well: a volume has the port of its place behind this one, the same whenever the
        pool is served; 0 for any that are free.
    listen
        Address of the TCP ports. Beyond loopback --port needs --tls, and --iscsi needs --chap.
    tls
        Directory with server-cert.pem and server-key.pem: the NBD ports then demand TLS, and with ca-cert.pem a client's too.
    iscsi
        Listen for iSCSI initiators on this TCP port, 3260 is the usual one: it tells of every volume, and sends a login to the
        port where whoever leads that volume listens, one of those behind it; 0 for any that are free.
    chap
        File with a line "name secret" for each initiator that may come in; with a line "target name secret" we prove who we are.
    forget_reservations
        A volume that begins without the reservations that initiators have made and it keeps, such as damaged ones.
    latency_budget
        How long writes are to take at most while a copy moves or is rebuilt beside them, such as "5 ms": that goes slower
        whenever one took longer; as fast as it can unless said.
    metrics
        Answer Prometheus on this port of 127.0.0.1; 0 for any that is free.
    link
        How the distance is emulated.
    accept_link_error
        Go on where a link is not what was asked.
    no_restart
        A replica that has ended stays down.
    json
        Print one document once every volume is served.
    verbose
        Also what replicas say of faults.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..experiment.pool.document import load
    from ..experiment.pool.server import serve_pool
    from ..experiment.pool.steps import opened
    from ..experiment.serve.server import Asked
    from .serve import budget_ns_of, check_doors, credentials_in
    from .serve import load as compile_doors

    refuse_both(verbose, quiet)
    check_doors(listen, port, tls, iscsi, chap, metrics)
    layout = asked.layout(None)
    load(directory)  # Refused before anything is compiled.
    serving = Asked(
        leg=layout.legs[0], link=link, accepts_error=accept_link_error, sockets=sockets, address=listen, port=port, tls=tls,
        iscsi_port=iscsi, chap=credentials_in(chap) if chap else None, metrics_port=metrics, restarts=not no_restart,
        is_verbose=verbose, is_quiet=quiet, latency_budget_ns=budget_ns_of(latency_budget),
    )  # fmt: skip
    compile_doors(verbose, quiet)
    load_link(verbose, quiet)

    def ready(server: PoolServer) -> None:
        figures = server.figures()
        with printing():
            if json:
                print_document({
                    "ready": True, "sockets": str(server.groups.sockets), "link": server.groups.lab.choice.kind,
                    "iscsi_portal": figures.iscsi_portal or None, "metrics_uri": figures.metrics_uri or None, "pool": figures,
                })  # fmt: skip
            else:
                print(pool_text(figures))
                print(f"\nready; end it with Ctrl-C, or kill {figures.pid}")
            sys.stdout.flush()

    with opened(directory) as found:
        return serve_pool(found, serving, ready, forget_reservations or ())


@pool.command(help_epilogue=below("pool add"))
def add(directory: Path, *, node: Nodes, json: Flag = False) -> int:
    """Add storage nodes, while the pool is served or not. They are empty until farwrite pool balance, or a new volume.

    Parameters
    ----------
    directory
        The pool's directory.
    node
        A node: NAME@SITE=SIZE, or NAME@SITE=SIZE:DIR with a directory of its own.
    json
        Print the pool as a document.
    """
    from ..experiment.pool.control import AddNodes

    return show_pool(asked(directory, AddNodes([node_of(one) for one in node])).pool, json)


@pool.command(help_epilogue=below("pool remove"))
def remove(directory: Path, node: str, *, keep: Flag = False, no_wait: Flag = False, json: Flag = False) -> int:
    """Remove a storage node: each copy that it holds moves to another one first, while clients write.

    Refused before anything moves where a volume would lose its level. While the pool is at rest nothing moves: a node that holds
    copies is removed when the pool is served next.

    Parameters
    ----------
    directory
        The pool's directory.
    node
        The node's name.
    keep
        Instead: a node that is being removed stays. Copies that have moved stay where they are.
    no_wait
        Do not wait until it is gone.
    json
        Print the pool as a document at the end.
    """
    from ..experiment.pool.control import RemoveNode

    answer = asked(directory, RemoveNode(node, keep))
    tell_moves(answer.moves)
    if not (no_wait or keep):
        answer = awaited(
            directory, answer, lambda figures: all(one.name != node for one in figures.nodes),
            f"farwrite pool remove: node {node} is being drained, and that goes on. To have it stay, say it again with --keep.",
        )  # fmt: skip
    return show_pool(answer.pool, json)


@pool.command(help_epilogue=below("pool balance"))
def balance(
    directory: Path, *, dry_run: Flag = False, across_sites: Flag = False, stop: Flag = False, no_wait: Flag = False,
    json: Flag = False,
) -> int:  # fmt: skip
    """Even out what each node has promised, and what it does, one move after the other, while clients write.

    Room comes first: copies move so that nodes have promised alike. Then load, as it was measured over the last 30 s: a volume is
    led at another node that has a copy, or a copy moves, until no node has more than 1.25 times the average load, in requests and
    in bytes. Each move is said with its figures. Clients of a volume that comes to be led elsewhere connect anew.

    Parameters
    ----------
    directory
        The pool's directory.
    dry_run
        Only say what would move.
    across_sites
        A volume may come to be led at another site, whose distance its clients then feel.
    stop
        Instead: what a balance has not begun is not done. The copy that is on its way goes on.
    no_wait
        Do not wait until all has moved.
    json
        Print the moves, and the pool at the end, as a document.
    """
    from ..experiment.pool.control import Balance

    if stop and (dry_run or across_sites):
        raise UsageError("--stop ends a balance, and --dry-run and --across-sites are about a new one: leave one away.")
    answer = asked(directory, Balance(go=not (dry_run or stop), across_sites=across_sites, stop=stop))
    moves, said = answer.moves, answer.said
    if not json:
        none = "nothing was waiting to be moved." if stop else "nothing to move: no move is worth its while."
        words = [*(f"not done: {sentence_of(move)}" if stop else sentence_of(move) for move in moves)] or [none]
        with printing():
            print("\n".join([*words, *said]), flush=True)
    if not (dry_run or no_wait or stop):
        answer = awaited(
            directory, answer, is_done, "farwrite pool balance: it goes on; farwrite pool balance --stop ends it after this move."
        )
    if json:
        with printing():
            print_document({"moves": moves, "said": said, "pool": answer.pool})
    return EXIT_DONE


# What they share


def node_of(words: str) -> StorageNode:
    """NAME@SITE=SIZE[:DIR]. UsageError for anything else."""
    from ..experiment.pool.document import StorageNode, checked_node

    found = NODE.fullmatch(words)
    if found is None:
        raise UsageError(f'--node "{words[:200]}": say NAME@SITE=SIZE, such as a@near=20g, or NAME@SITE=SIZE:DIR.')
    name, site, size, directory = found.groups()
    return checked_node(StorageNode(name, site, bytes_of(size, "--node"), str(Path(directory).absolute()) if directory else ""))


def asked(directory: Path, request: Request) -> Answer:
    """What becomes of a request to the pool in a directory."""
    from ..experiment.pool.control import ask

    return ask(directory, request)


def awaited(directory: Path, answer: Answer, is_there: Callable[[Figures], bool], interrupted: str) -> Answer:
    """Wait until the pool is so, as long as it is served; what is done is told. Ctrl-C ends the waiting alone."""
    from ..experiment.pool.control import Show

    said: set[str] = set()
    try:
        while answer.pool is not None and answer.pool.is_served and not is_there(answer.pool):
            for move in answer.migrations:
                if (failure := failed_text(move)) and failure not in said:
                    said.add(failure)
                    print(failure, file=sys.stderr, flush=True)
            time.sleep(LOOK_S)
            answer = asked(directory, Show())
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr, flush=True)
        raise
    return answer


def failed_text(move: MoveFigures) -> str:
    """Why a copy does not go on; empty while it does."""
    return f"farwrite pool: the copy of {move.volume} on {move.node}: {move.failure}" if move.failure and not move.end_ns else ""


def is_done(figures: Figures) -> bool:
    """Whether nothing is to move any more."""
    return not figures.queued and all(copy.state == "in" for volume in figures.volumes for copy in volume.copies)


def tell_moves(moves: list[Move]) -> None:
    for move in moves:
        print(f"farwrite pool: {sentence_of(move)}", file=sys.stderr, flush=True)


def sentence_of(move: Move) -> str:
    what = f"the copy on node {move.to} leads from now on" if move.leads else f"the copy {move.replica} moves to node {move.to}"
    return f"volume {move.volume}: {what}" + (f" ({move.why})" if move.why else "")


def show_pool(figures: Figures | None, json: bool) -> int:
    """A pool, for a person or a script."""
    assert figures is not None
    with printing():
        if json:
            print_document(figures)
        else:
            print(pool_text(figures))
    return EXIT_DONE


def pool_text(figures: Figures) -> str:
    """A pool in lines: its room, its nodes, its volumes."""
    from ..base.units import counted, format_size, format_time

    ratio = figures.promised_bytes / max(figures.capacity_bytes, 1)
    served = f"served by process {figures.pid}" if figures.is_served else "at rest"
    lines = [
        f"pool {figures.name}: {counted(len(figures.nodes), 'node')}, {counted(len(figures.volumes), 'volume')}, {served}",
        f"  {format_size(figures.promised_bytes)} promised of {format_size(figures.capacity_bytes)} ({ratio:.0%})",
    ]
    if figures.full_in_s is not None:
        lines.append(f"  its first node is full in {format_time(figures.full_in_s * 1e9)}, if volumes grow as they do of late")
    lines += [f"  iSCSI portal {figures.iscsi_portal}"] if figures.iscsi_portal else []
    lines += [f"  metrics {figures.metrics_uri}"] if figures.metrics_uri else []
    for node in figures.nodes:
        leaving = ", being removed" if node.is_leaving else ""
        lines.append(
            f"  node {node.name:16} {node.site:5}  {format_size(node.taken_bytes):>9} taken, "
            f"{format_size(node.free_bytes):>9} free, "
            f"{format_size(node.promised_bytes):>9} promised, {counted(node.copies, 'copy').replace('copys', 'copies')}{leaving}"
        )
    for volume in figures.volumes:
        words = [format_size(volume.size_bytes), f"level {volume.level}", *(["reserved"] if volume.is_reserved else [])]
        words += [volume.state] if volume.state != "ready" else []
        lines.append(f"  volume {volume.name:14} {', '.join(words)}: {copies_text(volume.copies)}")
        lines += [f"    {uri}" for uri in (volume.uri, volume.tcp_uri, volume.iscsi_uri) if uri]
        lines += [f"    {volume.status}"] if volume.status else []
    return "\n".join(lines)


def copies_text(copies: list[Any]) -> str:
    """Where the copies are: "a (near, leads), b (far)"."""

    def words(copy: Any) -> list[str]:
        return [copy.site, *(["leads"] if copy.leads else []), *([copy.state] if copy.state != "in" else [])]

    return ", ".join(f"{copy.node} ({', '.join(words(copy))})" for copy in copies)
