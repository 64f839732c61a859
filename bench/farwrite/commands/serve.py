"""`farwrite serve`: a replicated volume for real clients, its second copy an emulated distance away."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..base.errors import UsageError, nearest
from .drill import within
from .flags import Flag, Quiet, Verbose
from .link_options import NOTHING_ASKED, LinkOptions, load_link
from .options import bytes_of
from .output import print_document, printing, refuse_both

if TYPE_CHECKING:
    from ..engine.frontend.iscsi.chap import Credentials
    from ..experiment.serve.machines import Elsewhere
    from ..experiment.serve.server import Asked, Server
    from ..experiment.serve.volume_files import Settings
    from ..lab.topology import Layout, Leg

SIZE, PROTOCOL, POLICY, PEER_TIMEOUT = "1g", "C", "consent", "1 s"
PORT_MAX = 65535
BUDGET_NS_MIN, BUDGET_NS_MAX = 10_000, 10_000_000_000


# Longer than a function should be by its options and their help, which cyclopts reads from one signature; the body is not.
def serve(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    asked: LinkOptions = NOTHING_ASKED,
    size: str | None = None,
    room: str | None = None,
    protocol: str | None = None,
    policy: str | None = None,
    replicas: Literal[2, 3] | None = None,
    no_witness: Flag = False,
    peer_timeout: str | None = None,
    latency_budget: str | None = None,
    keep: Path | None = None,
    volume: Path | None = None,
    files: Path | None = None,
    memory: Flag = False,
    sockets: Path | None = None,
    port: int | None = None,
    listen: str = "127.0.0.1",
    tls: Path | None = None,
    iscsi: int | None = None,
    chap: Path | None = None,
    forget_reservations: Flag = False,
    metrics: int | None = None,
    far: str | None = None,
    far_keep: str | None = None,
    far_command: str | None = None,
    far_sockets: str = "",
    far_listen: str = "",
    far_tls: str = "",
    witness: str | None = None,
    no_restart: Flag = False,
    link: Literal["auto", "netem", "ferry", "relay"] = "auto",
    accept_link_error: Flag = False,
    root: Flag = False,
    json: Flag = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Serve a replicated volume over NBD and iSCSI: near and far hold a copy each, so far apart; whoever leads opens its doors.

    What the clients need is printed once they are served. Ctrl-C, SIGTERM or a closed terminal ends it: what was taken is
    answered, and the exit code is 0. With a command, that is run at the near site with the volume's URIs in NBD and ISCSI, and
    its exit code is ours.

    Parameters
    ----------
    command
        What to run at the near site, after "--".
    size
        Bytes of the volume, 1g unless said; thin: it takes room as it is written.
    room
        Bytes that it may take on each replica's disk; as many as there are unless said. A write that needs more is refused, and
        what is there can be read, written over and trimmed. What its snapshots keep comes on top.
    protocol
        When a write is answered: A, B, C, C2 or quorum; C unless said.
    policy
        What a lost replica means: block, consent (go on without it by a majority's leave; unless said) or suspend-replication.
    replicas
        2, and a witness at the third site, half-way between them; or 3, one of them there, which protocol quorum has.
    no_witness
        Two replicas alone, of which neither takes over from the other: with --policy block or suspend-replication.
    peer_timeout
        How long the engine lets a peer be silent; 1 s unless said.
    latency_budget
        How long writes are to take at most while a replica is brought up to date beside them, such as "5 ms": that goes slower
        whenever one took longer; as fast as it can unless said.
    keep
        Make the volume's files in this new directory, and leave them there.
    volume
        Open the volume that --keep left in this directory; it is as it was made.
    files
        Directory of files without names, gone with the command; by default the one for temporary files.
    memory
        Keep everything in memory instead.
    sockets
        Directory of the unix sockets near.sock, far.sock and volume.sock, which is always that of whoever leads; a temporary
        one unless said.
    port
        Listen on this TCP port as well; 0 for any that is free.
    listen
        Address of the TCP ports. Beyond loopback --port needs --tls, and --iscsi needs --chap.
    tls
        Directory with server-cert.pem and server-key.pem: the TCP port then demands TLS, and with ca-cert.pem a client's too.
    iscsi
        Listen for iSCSI initiators on this TCP port; 0 for any that is free, 3260 is the usual one.
    chap
        File with a line "name secret" for each initiator that may come in; with a line "target name secret" we prove who we are.
    forget_reservations
        With --volume: begin without the reservations that initiators have made and the volume keeps, such as damaged ones.
    metrics
        Answer Prometheus on this port of 127.0.0.1; 0 for any that is free.
    far
        The far replica on another machine, such as ssh://me@host/var/lib/disk, with its files in that directory there: nothing is
        emulated, the round trip is measured. It goes on by itself when ssh or this machine is lost. With --keep.
    far_keep
        That directory, where --far does not name it.
    far_command
        What farwrite is called there, and at the witness's; farwrite unless said.
    far_sockets
        Directory of far.sock there; sockets in the directory of its files unless said.
    far_listen
        With --far: the TCP ports are opened at this address of that machine too, while far leads. Beyond loopback --port needs
        --far-tls, and --iscsi needs --chap.
    far_tls
        As --tls, a directory of that machine.
    witness
        With --far: the witness on a third machine, such as ssh://host/var/lib/disk: far can then lead when this machine is lost.
    no_restart
        A replica that has ended stays down.
    link
        How the distance is emulated.
    accept_link_error
        Go on although a link does not deliver what was asked.
    root
        Without root: be root in the command's site, not yourself.
    json
        Print what is served as a document, once it is.
    verbose
        Say what the replicas warn of.
    quiet
        Say nothing on stderr but refusals.
    """
    refuse_both(verbose, quiet)
    typed = {
        name: value for name, value in (
            ("--size", size), ("--protocol", protocol), ("--policy", policy), ("--replicas", replicas),
            ("--no-witness", no_witness), ("--peer-timeout", peer_timeout),
        ) if value not in (None, False)
    }  # fmt: skip
    if sum(place is not None and place is not False for place in (keep, volume, files, memory or None)) > 1:
        raise UsageError("--keep, --volume, --files and --memory each say where the files are: give one of them.")
    if volume is not None and typed:
        raise UsageError(f"{next(iter(typed))} is for a new volume; that of --volume stays as it was made. Leave it away.")
    if forget_reservations and volume is None:
        raise UsageError("--forget-reservations is about a volume that was kept: it goes with --volume.")
    room_bytes = room_of(room)
    check_doors(listen, port, tls, iscsi, chap, metrics)
    from ..experiment.serve.server import Asked, served
    from ..experiment.serve.volume_files import kept_files, new_files, read_settings

    machines = {"--far-keep": far_keep, "--far-command": far_command, "--witness": witness}
    if volume is not None:
        for name, word in {"--far": far, **machines}.items():
            if word is not None:
                raise UsageError(f"{name} is for a new volume; that of --volume stays where it was made. Leave it away.")
        settings = read_settings(volume)
    else:
        settings = new_settings(asked, size, protocol, policy, replicas, no_witness, peer_timeout)
        settings = on_machines(settings, far, far_keep, far_command, witness, keep)
    if settings.far:
        refused = [name for name, value in (
            ("a link's option such as --miles", asked != NOTHING_ASKED), ("--link", link != "auto"), ("a command", bool(command)),
            ("--files", files), ("--memory", memory), ("--no-restart", no_restart), ("--root", root),
            ("--accept-link-error", accept_link_error),
        ) if value]  # fmt: skip
        if refused:
            raise UsageError(f"{refused[0]} is for a lab of this machine, and the far replica is on another one. Leave it away.")
    elif far_sockets or far_listen or far_tls:
        raise UsageError("--far-sockets, --far-listen and --far-tls are about a far replica on another machine: --far ssh://HOST/DIR.")
    else:
        asked = asked if asked != NOTHING_ASKED or volume is None else asked_again(settings.link)
    serving = Asked(
        leg=leg_of(asked, settings), link=link, accepts_error=accept_link_error, sockets=sockets, address=listen, port=port,
        tls=tls, iscsi_port=iscsi, chap=credentials_in(chap) if chap else None, forgets_reservations=forget_reservations,
        room_bytes=room_bytes, latency_budget_ns=budget_ns_of(latency_budget), metrics_port=metrics, restarts=not no_restart,
        is_verbose=verbose, is_quiet=quiet, as_root=root, far_address=far_listen, far_tls=far_tls,
    )  # fmt: skip
    if settings.far:
        return serve_on_machines(settings, serving, keep, volume, far_sockets, json)
    load(verbose, quiet)
    opened = kept_files(settings, volume) if volume is not None else new_files(settings, *place_of(keep, files, memory))
    with opened as found:
        return served(settings, found, serving, saying(found.text, json, bool(command)), command)


def saying(files: str, json: bool, has_command: bool = False) -> Callable[[Server], None]:
    """What is printed once clients are served."""

    def ready(server: Server) -> None:
        if json:
            with printing():
                print_document(server.document())
                sys.stdout.flush()
        elif not has_command:
            with printing():
                print(ready_text(server, files), flush=True)

    return ready


def leg_of(asked: LinkOptions, settings: Settings) -> Leg:
    """What is asked of the link; nothing where the machines stand where they stand."""
    from ..experiment.serve.apart import NOWHERE

    return NOWHERE if settings.far else asked.layout(None).legs[0]


def on_machines(
    settings: Settings, far: str | None, directory: str | None, command: str | None, witness: str | None, keep: Path | None
) -> Settings:
    """The settings of a volume whose far replica is elsewhere, as --far says; the same where it does not."""
    import msgspec

    from ..workload.ssh_host import far_host

    if far is None:
        for name, word in (("--far-keep", directory), ("--far-command", command), ("--witness", witness)):
            if word is not None:
                raise UsageError(f"{name} is about a far replica on another machine: add --far ssh://HOST/DIR.")
        return settings
    if directory is not None and not directory.startswith("/"):
        raise UsageError(f"--far-keep: {directory} is no whole path of that machine, such as /var/lib/disk.")
    host = far_host(far)
    if bool(host.directory) == (directory is not None):
        raise UsageError("Where are the far replica's files to be? Say --far ssh://HOST/DIR, or --far ssh://HOST --far-keep DIR.")
    if keep is None:
        raise UsageError("A replica that goes on by itself is found again by its files: say --keep DIR for those here.")
    if settings.replicas == 3:
        raise UsageError("--far has two replicas, here and there, and a witness: leave --replicas and --protocol quorum away.")
    if witness is not None and not far_host(witness, "--witness").directory:
        raise UsageError("Where is the witness's ballot to be? Say --witness ssh://HOST/DIR.")
    if witness is not None and not settings.has_witness:
        raise UsageError("--witness and --no-witness contradict each other: leave one away.")
    return msgspec.structs.replace(
        settings, far=far.rstrip("/") + (directory or ""), far_command=command or settings.far_command, witness=witness or ""
    )


def serve_on_machines(
    settings: Settings, serving: Asked, keep: Path | None, volume: Path | None, far_sockets: str, json: bool
) -> int:
    """A volume whose far replica, and maybe its witness, are on other machines. Of a new one these are asked first."""
    import contextlib

    from ..experiment.compilation import compile_doors
    from ..experiment.serve.machines import Others, attached, read_known, served_apart
    from ..experiment.serve.volume_files import kept_files, new_files
    from ..progress import bar
    from ..workload.ssh_host import far_host

    with bar(serving.is_verbose, serving.is_quiet) as progress:
        compile_doors(progress)
    witness = far_host(settings.witness, "--witness") if settings.witness else None
    others = Others(far_host(settings.far), witness, far_sockets)
    with contextlib.ExitStack() as stack:
        if volume is not None:
            found = stack.enter_context(kept_files(settings, volume, others.here()))
        known = read_known(volume) if volume is not None else None
        elsewhere = stack.enter_context(attached(others.voters(), settings, volume is None, known))
        kept = volume or keep
        assert kept is not None
        if volume is None:
            found = stack.enter_context(new_files(settings, kept, True, others.here()))
            stack.callback(undo, kept, elsewhere)
        return served_apart(settings, found, serving, elsewhere, kept, known, saying(found.text, json))


def room_of(room: str | None) -> int:
    """Bytes of --room; 0: no limit. UsageError for less than an extent."""
    from ..engine.room import EXTENT_BYTES

    room_bytes = bytes_of(room, "--room") if room is not None else 0
    if room is not None and room_bytes < EXTENT_BYTES:
        raise UsageError(f'--room: "{room}" is less than the {EXTENT_BYTES >> 10} KiB by which room is taken.')
    return room_bytes


def budget_ns_of(text: str | None) -> int:
    """Of --latency-budget, ns; 0: none. UsageError for one that no write could keep to, or that says nothing."""
    from ..base.units import time_ns

    budget_ns = time_ns(text, "--latency-budget") if text is not None else 0
    if text is not None and not BUDGET_NS_MIN <= budget_ns <= BUDGET_NS_MAX:
        raise UsageError(f'--latency-budget "{text}": give 10 us to 10 s.')
    return budget_ns


def serve_in_lab(
    words: list[str], asked: LinkOptions, size: str, layout: Layout, link: str, wait_port: int | None, root: bool,
    accept_link_error: bool, quiet: bool,
) -> int:  # fmt: skip
    """`farwrite lab --volume`: commands of a lab, and beside them a volume that is gone with it; answers the near one's code."""
    from ..experiment.serve.server import Asked, served
    from ..experiment.serve.volume_files import new_files
    from ..lab.topology import NEAR

    settings = new_settings(asked, size, None, None, None, False, None)
    serving = Asked(
        leg=layout.legs[0], link=link, accepts_error=accept_link_error, is_quiet=quiet, as_root=root, wait_port=wait_port,
        commands={name: line for name, line in layout.commands.items() if name != NEAR},
    )  # fmt: skip
    load(False, quiet)
    with new_files(settings, *place_of(None, None, False)) as found:
        return served(settings, found, serving, lambda server: None, words)


def undo(keep: Path, elsewhere: Mapping[str, Elsewhere]) -> None:
    """A new volume of which nothing came, because its machines do not reach each other, leaves no files."""
    from ..experiment.serve.volume_files import SETTINGS

    if not all(one.has_begun for one in elsewhere.values()):
        (keep / SETTINGS).unlink(missing_ok=True)  # Without it the others go as well.


def new_settings(
    asked: LinkOptions, size: str | None, protocol: str | None, policy: str | None, replicas: int | None, no_witness: bool,
    peer_timeout: str | None,
) -> Settings:  # fmt: skip
    """What a new volume is to be. UsageError for words that cannot be."""
    import typing

    import msgspec

    from ..base.protocol import NAMES
    from ..base.units import NS_PER_MS, NS_PER_S, format_size, time_ns
    from ..experiment.serve.volume_files import SIZE_BYTES_MAX, SIZE_BYTES_MIN, Settings, new_number
    from ..workload.drill_scenario import PolicyName, check_voters

    chosen = one_of(protocol or PROTOCOL, [name for name in NAMES if name != "local"], "protocol")
    of_policy = one_of(policy or POLICY, typing.get_args(PolicyName), "policy")
    size_bytes = bytes_of(size or SIZE, "--size")
    timeout_ns = time_ns(peer_timeout or PEER_TIMEOUT, "--peer-timeout")
    if not SIZE_BYTES_MIN <= size_bytes <= SIZE_BYTES_MAX or size_bytes % 4096:
        limits = f"{format_size(SIZE_BYTES_MIN)} and {format_size(SIZE_BYTES_MAX)}"
        raise UsageError(f'--size: "{size}" must lie between {limits}, and be a multiple of 4096.')
    if not 50 * NS_PER_MS <= timeout_ns <= 60 * NS_PER_S:
        raise UsageError(f'--peer-timeout: "{peer_timeout}" must lie between 50 ms and 60 s.')
    count = replicas or (3 if chosen == "quorum" else 2)
    has_witness = count == 2 and not no_witness
    check_voters(of_policy, chosen, count, has_witness)
    typed = {name: value for name in LINK_WORDS if (value := getattr(asked, name)) not in (None, getattr(NOTHING_ASKED, name))}
    return Settings(
        volume=new_number(), size_bytes=size_bytes, replicas=count, has_witness=has_witness, protocol=chosen,
        policy=msgspec.convert(of_policy, PolicyName), quorum=2 if chosen == "quorum" else 0, peer_timeout_ns=timeout_ns,
        link=typed,
    )  # fmt: skip


LINK_WORDS = ("miles", "km", "rtt", "route", "rate", "loss", "jitter")


def asked_again(typed: dict[str, str | float]) -> LinkOptions:
    """The distance that a kept volume was made for."""
    import msgspec

    try:
        return msgspec.convert(typed, LinkOptions)
    except msgspec.ValidationError as refusal:
        sentence = f"The distance in volume.json cannot be understood ({refusal}): say another, such as --miles 150."
        raise UsageError(sentence) from refusal


def one_of(word: str, known: Sequence[str], name: str) -> str:
    """A word that is known; a volume has one."""
    if word not in known:
        raise UsageError(f'--{name}: there is no "{word}"{nearest(word, known)}.')
    return word


def credentials_in(path: Path) -> Credentials:
    """Who may come in over iSCSI, as --chap says. UsageError for a file that others may read, or that cannot be understood."""
    from ..base.user_file import TEXT_BYTES_MAX, read_text
    from ..engine.frontend.iscsi.chap import Credentials

    text = read_text(path, "read the CHAP secrets in", TEXT_BYTES_MAX)
    if path.stat().st_mode & 0o077:
        raise UsageError(f"--chap {path}: others may read these secrets: chmod 600 {path}.")
    secrets: dict[str, bytes] = {}
    own_name, own_secret = "", b""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 3 and words[0] == "target" and not own_name:
            own_name, own_secret = words[1], words[2].encode()
        elif len(words) == 2 and words[0] not in secrets:
            secrets[words[0]] = words[1].encode()
        else:
            raise UsageError(f'--chap {path}, line {number}: give "name secret", each name once, or once "target name secret".')
    if not secrets:
        raise UsageError(f'--chap {path}: nobody is named in it, so nobody could come in: give a line "name secret".')
    try:
        return Credentials(secrets, own_name, own_secret)
    except ValueError as refusal:
        raise UsageError(f"--chap {path}: {refusal}.") from refusal


def check_doors(
    listen: str, port: int | None, tls: Path | None, iscsi: int | None, chap: Path | None, metrics: int | None
) -> None:
    """UsageError for TCP ports that cannot be, or that others would reach."""
    for name, number in (("port", port), ("iscsi", iscsi), ("metrics", metrics)):
        if number is not None:
            within(name, number, 0, PORT_MAX)
    check_address(listen, port, tls, iscsi, chap)
    if tls is not None:
        from ..base.wire.certificates import server_context

        server_context(tls)  # Refused here, not in a replica.


def check_address(listen: str, port: int | None, tls: Path | None, iscsi: int | None, chap: Path | None) -> None:
    """UsageError for an address that is none, or one that others reach without proof of who they are."""
    import ipaddress

    try:
        address = ipaddress.ip_address(listen)
    except ValueError:
        raise UsageError(f'--listen: "{listen}" is no address of the Internet protocol, such as 127.0.0.1.') from None
    if not address.is_loopback and iscsi is not None and chap is None:
        raise UsageError(
            f"--listen {listen}: others can reach that address, and whoever logs in reads and writes the volume. Name initiators "
            "and their secrets with --chap FILE, or leave --listen away."
        )
    if not address.is_loopback and port is not None and tls is None:
        raise UsageError(
            f"--listen {listen}: others can reach that address, and over NBD nobody says who he is: whoever connects reads and "
            "writes the volume. Give the port certificates with --tls DIR (server-cert.pem, server-key.pem, and ca-cert.pem that "
            "clients' certificates are signed by), or leave --listen away."
        )
    if not address.is_loopback and port is not None and tls is not None and not (tls / "ca-cert.pem").is_file():
        raise UsageError(
            f"--listen {listen}: others can reach that address, and without ca-cert.pem in {tls} every client is let in: add the "
            "certificate of the authority that signs your clients'."
        )
    if listen != "127.0.0.1" and port is None and iscsi is None:
        raise UsageError("--listen is about the TCP ports: give one with --port or --iscsi.")
    if tls is not None and port is None:
        raise UsageError("--tls is about the TCP port: give one with --port.")


def place_of(keep: Path | None, files: Path | None, memory: bool) -> tuple[Path | None, bool]:
    """(directory, whether the files stay there)."""
    import tempfile

    if keep is not None:
        return keep, True
    return (None if memory else files or Path(tempfile.gettempdir())), False


def load(verbose: bool, quiet: bool) -> None:
    """Compile what a replica, its doors and the links run, before anything forks."""
    from ..experiment.compilation import compile_doors
    from ..progress import bar

    with bar(verbose, quiet) as progress:
        compile_doors(progress)
    load_link(verbose, quiet)


def ready_text(server: Server, files: str) -> str:
    """What a person needs to know: where it is, and a line for each of the usual clients."""
    from ..base.units import format_size

    uri, settings = server.uri(), server.settings
    lines = [
        f"{format_size(settings.size_bytes)} under protocol {settings.protocol}, {len(server.replicas)} replicas"
        f"{' and a witness' if settings.has_witness else ''}, {server.link_text()}; "
        f"files in {files}; TCP {server.congestion}", "",
        f"  follows who leads  {uri}",
        *(f"  {f'at {name}':17}  {server.uri(name)}" for name in server.replicas),
    ]  # fmt: skip
    tcp = server.tcp_uri()
    lines += [f"  TCP                {tcp}"] if tcp else []
    disk = server.iscsi_uri()
    lines += [f"  iSCSI              {disk}"] if disk else []
    lines += [f"  metrics            {server.metrics_uri}"] if server.metrics_uri else []
    lines += [f"  to be read only    {server.uri('', 'volume-ro')}", *server.ready_lines(), ""]
    socket = server.directory / "volume.sock"
    drive = f"format=raw,file.driver=nbd,file.server.type=unix,file.server.path={socket},file.reconnect-delay=60"
    lines += [
        f"  nbdinfo '{uri}'",
        f"  qemu-img convert -n -O raw disk.img '{uri}'",
        f"  qemu-system-x86_64 -drive {drive}",
        f"  nbdcopy disk.img '{uri}'",
        f"  fio --name=write --ioengine=nbd --uri='{uri}' --rw=randwrite --bs=4k --size=64m",
        f"  nbd-client -unix {socket} /dev/nbd0 -N volume -timeout 10",
        f"  farwrite snapshot create before-upgrade --sockets {server.directory}",
        *([f"  qemu-img info '{disk}'", f"  iscsiadm -m discovery -t st -p {disk.split('/')[2]}"] if disk else []), "",
        f"ready: {server.leader()} leads; end it with Ctrl-C, or kill {server.document()['pid']}",
    ]  # fmt: skip
    return "\n".join(lines)
