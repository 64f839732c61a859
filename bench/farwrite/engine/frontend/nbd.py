"""The words of NBD, as `nbd_kernel` and the negotiation use them: doc/proto.md of NetworkBlockDevice/nbd. Big-endian."""

from __future__ import annotations

import struct

# Negotiation: fixed newstyle.
INIT_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9

FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1 << 0, 1 << 1  # of the server's handshake
FLAG_C_FIXED_NEWSTYLE, FLAG_C_NO_ZEROES = 1 << 0, 1 << 1  # of the client's

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_PEEK_EXPORT, OPT_STARTTLS, OPT_INFO, OPT_GO = range(1, 8)
OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_EXTENDED_HEADERS = range(8, 12)

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
REP_FLAG_ERROR = 1 << 31
REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_PLATFORM, REP_ERR_TLS_REQD = (REP_FLAG_ERROR | of for of in range(1, 6))
REP_ERR_UNKNOWN, REP_ERR_SHUTDOWN, REP_ERR_BLOCK_SIZE_REQD, REP_ERR_TOO_BIG = (REP_FLAG_ERROR | of for of in range(6, 10))

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

# Transmission flags of an export.
HAS_FLAGS, IS_READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES = (1 << bit for bit in range(7))
SEND_DF, CAN_MULTI_CONN, SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO = (1 << bit for bit in range(7, 12))

# What every export of ours can do; IS_READ_ONLY is added to it, SEND_DF where structured replies were negotiated.
# FLUSH and FUA of any connection cover what was answered on all: each answered write is durable at the protocol's point.
TRANSMISSION_FLAGS = (
    HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | CAN_MULTI_CONN | SEND_CACHE | SEND_FAST_ZERO
)

# Requests.
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
REQUEST_BYTES, SIMPLE_REPLY_BYTES, CHUNK_BYTES = 28, 16, 20

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = (1 << bit for bit in range(5))

# Chunks of structured replies.
CHUNK_DONE = 1 << 0
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_BLOCK_STATUS = 0, 1, 2, 5
CHUNK_ERROR, CHUNK_ERROR_OFFSET = (1 << 15) + 1, (1 << 15) + 2

BASE_ALLOCATION, BASE_ALLOCATION_ID = "base:allocation", 1  # The id is what SET_META_CONTEXT answers and our chunks carry.
# Of our own: bit 0 is set where the export may differ from an older snapshot, which the name ends with.
CHANGED_SINCE, CHANGED_SINCE_ID = "farwrite:changed-since:", 2
STATUS_CHANGED = 1 << 0
STATUS_HOLE, STATUS_ZERO = 1 << 0, 1 << 1

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108

# Sizes that are advertised: any byte, best by pages, and what clients take for granted (proto.md, "Block size constraints").
BLOCK_BYTES_MIN, BLOCK_BYTES_PREFERRED, PAYLOAD_BYTES_MAX = 1, 4096, 32 << 20

REQUEST = struct.Struct(">IHHqQI")  # magic, flags, command, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIq")  # magic, error, cookie
CHUNK = struct.Struct(">IHHqI")  # magic, flags, type, cookie, length
