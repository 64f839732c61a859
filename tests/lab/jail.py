"""A program that forbids itself what Docker's default seccomp profile forbids a container, and then becomes another program.

`python jail.py COMMAND...`: no namespaces (unshare, setns, clone with CLONE_NEW*, clone3), no mounts, no io_uring, no TUN device.
Needs no privilege: PR_SET_NO_NEW_PRIVS, seccomp(2). The codes are linux/filter.h's.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# AUDIT_ARCH_*, then the numbers of what is refused; __NR_* of asm/unistd.h.
ARCHITECTURES = {
    "x86_64": (0xC000003E, {"unshare": 272, "setns": 308, "mount": 165}, 56, 16),
    "aarch64": (0xC00000B7, {"unshare": 97, "setns": 268, "mount": 40}, 220, 29),
}
EVERYWHERE = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
CLONE3 = 435
CLONE_NEW_ANY = 0x7E020080
TUNSETIFF = 0x400454CA

LOAD, EQUAL, ANY_BIT, ANSWER = 0x20, 0x15, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # Offsets in struct seccomp_data; the arguments' lower halves.
ALLOW, REFUSE = 0x7FFF0000, 0x00050000

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2


def program():
    """The filter's instructions: (code, jump if true, jump if false, operand)."""
    architecture, refused, clone, ioctl = ARCHITECTURES[platform.machine()]
    made = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (ANSWER, 0, 0, ALLOW), (LOAD, 0, 0, NUMBER)]
    for number in (refused | EVERYWHERE).values():
        made += [(EQUAL, 0, 1, number), (ANSWER, 0, 0, REFUSE | errno.EPERM)]
    made += [(EQUAL, 0, 1, CLONE3), (ANSWER, 0, 0, REFUSE | errno.ENOSYS)]  # The C library then takes clone.
    for number, offset, test, operand in ((clone, FIRST, ANY_BIT, CLONE_NEW_ANY), (ioctl, SECOND, EQUAL, TUNSETIFF)):
        made += [
            (EQUAL, 0, 4, number), (LOAD, 0, 0, offset), (test, 0, 1, operand), (ANSWER, 0, 0, REFUSE | errno.EPERM),
            (LOAD, 0, 0, NUMBER),
        ]  # fmt: skip
    return [*made, (ANSWER, 0, 0, ALLOW)]


def forbid():
    """From here on this process, and what it becomes and starts, is refused these calls."""
    instructions = b"".join(struct.pack("HBBI", *one) for one in program())
    room = ctypes.create_string_buffer(instructions)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(room)))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)):
        if libc.prctl(*words) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def works():
    """Whether this system can be forbidden anything."""
    if platform.machine() not in ARCHITECTURES:
        return False
    child = os.fork()
    if child == 0:
        try:
            forbid()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])
