"""A TUN device: packets of a namespace, read and written by a descriptor. Linux Documentation/networking/tuntap.rst."""

from __future__ import annotations

import fcntl
import os
import struct

from ..errors import UnfitError, system_error

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
OFFLOAD_CHECKSUM, OFFLOAD_TSO4, OFFLOAD_TSO6 = 0x01, 0x02, 0x04

VNET_HEADER_BYTES = 10  # struct virtio_net_hdr, in front of every packet.
PACKET_BYTES_MAX = VNET_HEADER_BYTES + 65535  # With segmentation offload the stack hands over 64 KiB at once.

NO_TUN = (
    "The ferry needs /dev/net/tun, readable and writable (modprobe tun; in Docker: --device /dev/net/tun "
    '--cap-add NET_ADMIN). Where the kernel has sch_netem, "--link netem" needs no TUN.'
)


def open_tun(name: str) -> int:
    """A non-blocking descriptor of a new TUN device of the calling process's network namespace; the device lives as
    long as the descriptor. Packets carry a virtio header, so large TCP segments and missing checksums pass as they are."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as refusal:
        raise system_error("open /dev/net/tun", refusal.errno or 0, NO_TUN) from refusal
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        offload(descriptor, segments=True, checksums=True)
    except OSError as refusal:
        os.close(descriptor)
        raise system_error(f"create the TUN device {name}", refusal.errno or 0, NO_TUN) from refusal
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def offload(descriptor: int, segments: bool, checksums: bool) -> None:
    """What the stack may leave to the device from now on: cutting TCP's 64 KiB into segments, and making checksums. A packet must
    have its checksum before one of its bits is turned: a receiver believes one that has none yet."""
    wanted = (OFFLOAD_TSO4 | OFFLOAD_TSO6 if segments and checksums else 0) | (OFFLOAD_CHECKSUM if checksums else 0)
    fcntl.ioctl(descriptor, TUNSETOFFLOAD, wanted)


def tun_works() -> str | None:
    """None when the calling process may create a TUN device in its network namespace, otherwise the reason. Tries it."""
    try:
        os.close(open_tun("trial"))
        return None
    except UnfitError as refusal:
        return str(refusal)
