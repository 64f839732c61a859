"""How long a peer may be silent before a replica that fails over by itself gives it up, from the round trip to it.

A peer is asked for a sign of life at a quarter of this (`keep_alive`), and shows one behind each extent that it is sent. A
secondary waits twice as long for its primary, then one to two times as long by lot. TCP sends a lost packet again after at least
200 ms (RFC 6298 has 1 s, Linux TCP_RTO_MIN 200 ms), and after 400 ms more if that is lost as well. So twice
500 ms outlast two losses in a row, and 20 round trips leave the same room where the round trip is what counts. A process that has
ended is not waited for at all (node.py).
"""

from __future__ import annotations

PEER_TIMEOUT_NS_MIN = 500_000_000
ROUND_TRIPS = 20


def peer_timeout_of(rtt_ns: int) -> int:
    """The peer timeout, in ns, for a round trip of `rtt_ns`."""
    return max(PEER_TIMEOUT_NS_MIN, ROUND_TRIPS * rtt_ns)
