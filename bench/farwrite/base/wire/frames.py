"""Compressed bytes in frames: what is sent in one turn is one frame, so a lone write waits for no company.

    byte  0   kind u8, zero u8 x 3
          4   length u32, before compression
          8   packed u32, bytes that follow
         12   crc32c u32, over bytes 0 to 11 and those that follow

Little-endian. What arrives is hostile: no frame may become more than FRAME_BYTES_MAX, whatever it claims, and frames are unpacked
one by one as the reader takes them, so that small frames cannot fill the memory either. A frame that does not get smaller goes
as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..crc_kernel import crc32c
from .channel import DamagedError
from .terms import CompressionName

FRAME_BYTES_MAX = 256 << 10  # Before compression.
HEADER = struct.Struct("<B3xIII")
HEAD = struct.Struct("<B3xII")
STORED, PACKED, END = 1, 2, 3
ZSTD_LEVEL = 1  # A write waits for it: 256 KiB of text take 0.6 ms at level 1, 1.1 ms at 3 (2.5 GHz Xeon VM, zstd 1.5).


class Packer(Protocol):
    """One direction's way out."""

    def pack(self, data: memoryview) -> bytes | memoryview: ...
    def end(self) -> bytes: ...


class Unpacker(Protocol):
    """One direction's way in: put what came, take what it says piece by piece; None when more must come first."""

    ended: bool

    @property
    def ready(self) -> bool: ...  # Whether `take` has something to say, if only that it is damaged.

    def put(self, data: bytes) -> None: ...
    def take(self) -> bytes | None: ...


class AsItIs:
    """The null form, either way: no frames. Where a stream ends is the encryption's to say."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False

    def pack(self, data: memoryview) -> memoryview:
        return data

    def end(self) -> bytes:
        return b""

    @property
    def ready(self) -> bool:
        return bool(self.pieces)

    def put(self, data: bytes) -> None:
        if data:
            self.pieces.append(data)

    def take(self) -> bytes | None:
        data, self.pieces = b"".join(self.pieces), []
        return data or None


class FramePacker:
    """Bytes into frames."""

    def __init__(self, compress: Callable[[memoryview], bytes]) -> None:
        self.compress = compress

    def pack(self, data: memoryview) -> bytes:
        """One frame."""
        assert 0 < len(data) <= FRAME_BYTES_MAX
        packed = self.compress(data)
        return frame(PACKED, len(data), packed) if len(packed) < len(data) else frame(STORED, len(data), data)

    def end(self) -> bytes:
        """What tells a stream that has ended from one that was cut off."""
        return frame(END, 0, b"")


class FrameUnpacker:
    """Frames into bytes. DamagedError for anything that is none of ours; nothing is given out from there on."""

    def __init__(self, decompress: Callable[[bytes, int], bytes]) -> None:
        self.decompress = decompress
        self.waiting = bytearray()
        self.ended = False

    @property
    def ready(self) -> bool:
        """Whether a whole frame is there, or what can be none."""
        if self.ended or len(self.waiting) < HEADER.size:
            return bool(self.ended and self.waiting)
        return len(self.waiting) >= HEADER.size + min(HEADER.unpack_from(self.waiting)[2], FRAME_BYTES_MAX)

    def put(self, data: bytes) -> None:
        """Note what came; no more is put before all that is whole was taken."""
        self.waiting += data

    def take(self) -> bytes | None:
        """The next frame's bytes."""
        if self.ended and self.waiting:
            raise DamagedError("The peer's tunnel went on after its end.")
        if len(self.waiting) < HEADER.size:
            return None
        kind, length, packed, checksum = HEADER.unpack_from(self.waiting)
        fits = {STORED: packed == length, PACKED: packed < length, END: packed == length == 0}.get(kind, False)
        if not fits or (length == 0) != (kind == END) or length > FRAME_BYTES_MAX:
            raise DamagedError(f"The peer sent a frame of kind {kind} with {packed} bytes for {length}: not one of ours.")
        if len(self.waiting) < HEADER.size + packed:
            return None
        head, body = bytes(self.waiting[: HEAD.size]), self.waiting[HEADER.size : HEADER.size + packed]
        if checksum_of(head, body) != checksum:
            raise DamagedError("A frame was damaged on its way: its CRC32C does not fit.")
        del self.waiting[: HEADER.size + packed]
        if kind == END:
            self.ended = True
            return self.take()
        return self.decompress(bytes(body), length) if kind == PACKED else bytes(body)


def frame(kind: int, length: int, body: bytes | memoryview) -> bytes:
    """One frame as it goes over the wire."""
    head = HEAD.pack(kind, length, len(body))
    return b"".join((head, checksum_of(head, bytearray(body)).to_bytes(4, "little"), body))


def checksum_of(head: bytes, body: bytearray) -> int:
    """CRC32C of a frame without the checksum itself."""
    begun = crc32c(0, np.frombuffer(bytearray(head), np.uint8), 0, HEAD.size)
    return int(crc32c(begun, np.frombuffer(body, np.uint8), 0, len(body)))


def codec_of(compression: CompressionName) -> tuple[Packer, Unpacker]:
    """Both directions of one end."""
    if compression == "none":
        return AsItIs(), AsItIs()
    compress, decompress = zstd() if compression == "zstd" else lz4()
    return FramePacker(compress), FrameUnpacker(decompress)


def zstd() -> tuple[Callable[[memoryview], bytes], Callable[[bytes, int], bytes]]:
    """Zstandard, RFC 8878: each frame by itself."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    decompressor = zstandard.ZstdDecompressor(max_window_size=FRAME_BYTES_MAX)

    def decompress(packed: bytes, length: int) -> bytes:
        try:
            # The library makes room for what the data claims of itself: that is asked first.
            if zstandard.get_frame_parameters(packed).content_size != length:
                raise DamagedError("A compressed frame claims another size than its header.")
            data = decompressor.decompress(packed, max_output_size=length, allow_extra_data=False)
        except zstandard.ZstdError as refusal:
            raise DamagedError(f"A frame is not what zstd makes: {refusal}.") from refusal
        return whole(data, length)

    return compressor.compress, decompress


def lz4() -> tuple[Callable[[memoryview], bytes], Callable[[bytes, int], bytes]]:
    """LZ4 blocks, the size told by our own header."""
    from lz4 import block

    def compress(data: memoryview) -> bytes:
        return block.compress(data, store_size=False)

    def decompress(packed: bytes, length: int) -> bytes:
        try:
            data = block.decompress(packed, uncompressed_size=length)
        except block.LZ4BlockError as refusal:
            raise DamagedError(f"A frame is not what lz4 makes: {refusal}.") from refusal
        return whole(data, length)

    return compress, decompress


def whole(data: bytes, length: int) -> bytes:
    """Exactly what the header promised."""
    if len(data) != length:
        raise DamagedError(f"A frame of {length} bytes became {len(data)}.")
    return data
