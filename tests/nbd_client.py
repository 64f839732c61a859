"""A client of an NBD door in the plainest Python: for tests that must know of each write whether it was answered."""

from __future__ import annotations

import socket
import struct

from farwrite.engine.frontend import nbd

NAME = b"volume"


class NbdClient:
    """One connection, one request at a time. ConnectionError or OSError when the other end is gone."""

    def __init__(self, address, name=NAME, limit_s=30.0):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(limit_s)
        self.cookie = 0
        try:
            self.socket.connect(address)
            self.heard(18)
            self.socket.sendall(struct.pack(">I", 3))
            asked = struct.pack(">I", len(name)) + name + bytes(2)
            self.socket.sendall(struct.pack(">QII", nbd.OPTION_MAGIC, nbd.OPT_GO, len(asked)) + asked)
            while (reply := struct.unpack(">QIII", self.heard(20)))[2] != nbd.REP_ACK:
                data = self.heard(reply[3])
                assert reply[2] == nbd.REP_INFO, data
                if struct.unpack(">H", data[:2])[0] == nbd.INFO_EXPORT:
                    self.size, self.flags = struct.unpack(">QH", data[2:])
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.socket.close()

    def heard(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise ConnectionError("the door hung up")
            data += piece
        return data

    def ask(self, command, offset=0, length=0, data=b"", flags=0):
        """The error of one request, 0 for success, and what was read."""
        self.cookie += 1
        self.socket.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, self.cookie, offset, length) + data)
        magic, error, cookie = nbd.SIMPLE_REPLY.unpack(self.heard(nbd.SIMPLE_REPLY_BYTES))
        assert magic == nbd.SIMPLE_REPLY_MAGIC and cookie == self.cookie
        return error, self.heard(length) if command == nbd.READ and not error else b""

    def write(self, offset, data, flags=0):
        return self.ask(nbd.WRITE, offset, len(data), data, flags)[0]

    def read(self, offset, length):
        error, data = self.ask(nbd.READ, offset, length)
        assert error == 0
        return data
