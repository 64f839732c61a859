"""The login phase of iSCSI (RFC 7143 sections 6 and 11.12): keys in, keys out, and in the end terms that both sides keep.

`negotiate` is the rule of one key, pure; `Login` is one connection's phase, also without a socket: a request goes in, the pieces
of the response come out. Who a session belongs to and whether it may join is asked of `Rules`, which the target fills in.

Either side alone can force a second round trip on every write: InitialR2T is or-ed, ImmediateData and-ed, lengths take the
minimum. What we offer lets a write of 256 KiB go out in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from . import pdu
from .chap import ChapError, Credentials, Exchange
from .text import TEXT_BYTES_MAX, TextError, number_of, pairs_of, text_of

LOGIN_BYTES_MAX = 8192  # The data segment of one request: what holds before anything else was agreed.
REQUESTS_MAX = 64
NAME_BYTES_MAX = 223  # RFC 7143 section 4.2.7.1.

SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3
STAGE_NAMES = {SECURITY: "security", OPERATIONAL: "operational", FULL_FEATURE: "full feature"}
TRANSIT = 0x80

# Status class and detail, RFC 7143 section 11.13.5.
SUCCESS, MOVED_TEMPORARILY = 0x0000, 0x0101
INITIATOR_ERROR, AUTHENTICATION_FAILED, FORBIDDEN, NOT_FOUND = 0x0200, 0x0201, 0x0202, 0x0203
UNSUPPORTED_VERSION, TOO_MANY_CONNECTIONS, MISSING_PARAMETER = 0x0205, 0x0206, 0x0207
UNSUPPORTED_SESSION_TYPE, NO_SUCH_SESSION, INVALID_DURING_LOGIN = 0x0209, 0x020A, 0x020B
SERVICE_UNAVAILABLE, OUT_OF_RESOURCES = 0x0301, 0x0302

NOT_UNDERSTOOD, REJECT, IRRELEVANT = "NotUnderstood", "Reject", "Irrelevant"


@dataclass(frozen=True)
class Terms:
    """What a session keeps to. The defaults are those of RFC 7143 section 13: what holds for a key that nobody names."""

    header_digest: bool = False
    data_digest: bool = False
    initial_r2t: bool = True
    immediate_data: bool = True
    max_outstanding_r2t: int = 1
    first_burst: int = 65536
    max_burst: int = 262144
    initiator_segment: int = 8192  # MaxRecvDataSegmentLength that the initiator has declared
    target_segment: int = 8192  # ours

    @property
    def unsolicited_max(self) -> int:
        """Bytes of a write that may come before it is asked for them: immediate data and what follows it unasked."""
        first = min(self.first_burst, self.max_burst)
        if not self.initial_r2t:
            return first
        return min(first, self.target_segment) if self.immediate_data else 0


@dataclass(frozen=True)
class Offer:
    """What this target would like, and the digests that it takes."""

    initial_r2t: bool = False
    immediate_data: bool = True
    max_outstanding_r2t: int = 8
    first_burst: int = 256 << 10
    max_burst: int = (16 << 20) - 512
    segment: int = 256 << 10
    digests: tuple[str, ...] = ("CRC32C", "None")


LENGTH_RANGE = (512, (1 << 24) - 1)
# Keys that take the smaller value, and the range that a value must lie in.
MINIMUM = {
    "MaxOutstandingR2T": ("max_outstanding_r2t", (1, 65535)),
    "FirstBurstLength": ("first_burst", LENGTH_RANGE),
    "MaxBurstLength": ("max_burst", LENGTH_RANGE),
}
# Keys whose value is ours whatever is offered, as long as the offer lies in the range: what the minimum or maximum of both is.
FIXED_NUMBERS = {
    "MaxConnections": (min, 1, (1, 65535)),  # One connection a session; several paths are several sessions.
    "DefaultTime2Wait": (max, 2, (0, 3600)),
    "DefaultTime2Retain": (min, 0, (0, 3600)),  # A session ends with its connection.
    "ErrorRecoveryLevel": (min, 0, (0, 2)),
    "iSCSIProtocolLevel": (min, 1, (0, 31)),
}
OBSOLETE = ("IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt")  # RFC 7143 section 13.25.
NORMAL_ONLY = frozenset({
    "MaxConnections", "InitialR2T", "ImmediateData", "MaxOutstandingR2T", "FirstBurstLength", "MaxBurstLength", "DataPDUInOrder",
    "DataSequenceInOrder", "TaskReporting",
})  # fmt: skip
DECLARED = frozenset({"InitiatorName", "InitiatorAlias", "TargetName", "SessionType"})  # Said, not negotiated.


class Negotiated(NamedTuple):
    """The answer to one key, None where none is due, and the terms from now on."""

    answer: str | None
    terms: Terms


def negotiate(terms: Terms, offer: Offer, key: str, value: str, discovery: bool = False) -> Negotiated:
    """What we answer to one operational key, and what then holds (RFC 7143 section 13)."""
    if discovery and key in NORMAL_ONLY:
        return Negotiated(IRRELEVANT, terms)
    if key in ("HeaderDigest", "DataDigest"):
        chosen = next((one for one in value.split(",") if one in offer.digests), None)
        if chosen is None:
            return Negotiated(REJECT, terms)
        is_on = chosen == "CRC32C"
        attribute = "header_digest" if key == "HeaderDigest" else "data_digest"
        return Negotiated(chosen, replace(terms, **{attribute: is_on}))
    if key in ("InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder"):
        return negotiate_boolean(terms, offer, key, value)
    if key == "MaxRecvDataSegmentLength":  # Declared: each says its own.
        number = number_of(value)
        if number is None or not LENGTH_RANGE[0] <= number <= LENGTH_RANGE[1]:
            return Negotiated(REJECT, terms)
        return Negotiated(None, replace(terms, initiator_segment=number))
    if key in MINIMUM:
        return negotiate_minimum(terms, offer, key, value)
    if key in FIXED_NUMBERS:
        choose, ours, (low, high) = FIXED_NUMBERS[key]
        number = number_of(value)
        return Negotiated(str(choose(number, ours)) if number is not None and low <= number <= high else REJECT, terms)
    if key == "TaskReporting":
        return Negotiated("RFC3720" if "RFC3720" in value.split(",") else REJECT, terms)
    return Negotiated(REJECT if key in OBSOLETE else NOT_UNDERSTOOD, terms)


def negotiate_boolean(terms: Terms, offer: Offer, key: str, value: str) -> Negotiated:
    if value not in ("Yes", "No"):
        return Negotiated(REJECT, terms)
    theirs = value == "Yes"
    if key == "InitialR2T":
        both = theirs or offer.initial_r2t
        terms = replace(terms, initial_r2t=both)
    elif key == "ImmediateData":
        both = theirs and offer.immediate_data
        terms = replace(terms, immediate_data=both)
    else:
        both = True  # In order, always: or-ed.
    return Negotiated("Yes" if both else "No", terms)


def negotiate_minimum(terms: Terms, offer: Offer, key: str, value: str) -> Negotiated:
    attribute, (low, high) = MINIMUM[key]
    number = number_of(value)
    if number is None or not low <= number <= high:
        return Negotiated(REJECT, terms)
    chosen = min(number, getattr(offer, attribute))
    return Negotiated(str(chosen), replace(terms, **{attribute: chosen}))


class Identity(NamedTuple):
    """Who has logged in to what: an initiator port is a name and an ISID (RFC 7143 section 4.4.3)."""

    initiator: str
    isid: bytes
    target: str  # "" in a discovery session
    session: int  # TSIH of the request: 0 for a new session
    chap_name: str | None

    @property
    def is_discovery(self) -> bool:
        return self.target == ""


class Joined(NamedTuple):
    """Whether a session may begin: a login status, and its handle (TSIH)."""

    status: int
    session: int = 0


@dataclass(frozen=True)
class Rules:
    """What the target says of itself and of who may come in."""

    targets: frozenset[str]
    join: Callable[[Identity], Joined]
    portal_group: int = 1
    offer: Offer = field(default_factory=Offer)
    credentials: Credentials | None = None  # None: everybody may come in
    initiators: frozenset[str] | None = None  # None: whatever their names
    redirect: Callable[[str], str | None] = lambda target: None  # "address:port" of the portal that serves a target now
    command_window: int = 64


class Reply(NamedTuple):
    """The pieces of a response, and whether the phase is over: in full feature, or refused."""

    pieces: list[bytes | memoryview]
    is_full_feature: bool = False
    is_refused: bool = False
    why: str = ""


class RefusedError(Exception):
    def __init__(self, status: int, why: str, answers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.answers = status, answers or {}


@dataclass
class Login:
    """One connection's login phase. After it, `identity`, `terms` and the numbers are what the session begins with."""

    rules: Rules
    random: Callable[[int], bytes] | None = None
    terms: Terms = field(default_factory=Terms)
    identity: Identity | None = None
    session: int = 0
    stage: int = -1
    status_sn: int = 1
    expected_command_sn: int = 0
    connection: int = 0

    def __post_init__(self) -> None:
        self.chap: Exchange | None = None
        self.is_proven = self.rules.credentials is None
        self.text = b""
        self.requests = 0
        self.named: dict[str, str] = {}
        self.has_declared = False
        self.negotiated: set[str] = set()

    def reply(self, request: pdu.Pdu) -> Reply:
        """Answer one login request."""
        header = request.header
        self.requests += 1
        if self.requests == 1:
            self.expected_command_sn = request.command_sn
        try:
            answers, flags = self.answers(request)
            text = text_of(answers)
            done = bool(flags & TRANSIT) and flags & 3 == FULL_FEATURE
            return Reply(self.pieces(header, flags, SUCCESS, text), is_full_feature=done)
        except RefusedError as refusal:
            return Reply(self.pieces(header, 0, refusal.status, text_of(refusal.answers)), is_refused=True, why=str(refusal))

    def pieces(self, header: bytes, flags: int, status: int, text: bytes) -> list[bytes | memoryview]:
        numbers = pdu.Numbers(self.status_sn, self.expected_command_sn, self.expected_command_sn + self.rules.command_window - 1)
        answer = pdu.login_response(flags, header[8:14], self.session, pdu.word(header, 16), status, len(text), numbers)
        self.status_sn += 1
        return pdu.framed(answer, text)

    def answers(self, request: pdu.Pdu) -> tuple[dict[str, str], int]:
        """The keys of the response, and its flags."""
        header, flags = request.header, request.flags
        if request.opcode != pdu.LOGIN:
            raise RefusedError(INVALID_DURING_LOGIN, f"opcode {request.opcode:#x} before the login is over")
        if header[3] > 0:
            raise RefusedError(UNSUPPORTED_VERSION, f"it speaks no version below {header[3]}")
        current, following = flags >> 2 & 3, flags & 3
        transit, continued = bool(flags & TRANSIT), bool(flags & pdu.CONTINUE)
        if current not in (SECURITY, OPERATIONAL) or current < self.stage or (transit and continued):
            raise RefusedError(INITIATOR_ERROR, "its login stages are not in order")
        if transit and (following not in (OPERATIONAL, FULL_FEATURE) or following <= current):
            raise RefusedError(INITIATOR_ERROR, "it wants to go on to a stage that does not follow")
        if self.requests > REQUESTS_MAX or len(self.text) + len(request.data) > TEXT_BYTES_MAX:
            raise RefusedError(INITIATOR_ERROR, "it negotiates without end")
        self.text += request.data
        self.stage = current
        if continued:
            return {}, current << 2
        try:
            keys = pairs_of(self.text)
        except TextError as error:
            raise RefusedError(INITIATOR_ERROR, str(error)) from None
        self.text = b""

        answers = self.introduce(header, keys) if self.identity is None else {}
        if current == SECURITY:
            answers |= self.secure(keys)
        elif not self.is_proven:
            raise RefusedError(AUTHENTICATION_FAILED, "it passes by the security stage, and we ask for CHAP")
        answers |= self.operate(keys, current)
        if not (transit and self.is_proven):
            return answers, current << 2
        if following == FULL_FEATURE:
            self.finish()
        self.stage = following
        return answers, TRANSIT | current << 2 | following

    def introduce(self, header: bytes, keys: dict[str, str]) -> dict[str, str]:
        """Who comes, and to whom: the first request says so."""
        initiator, target = keys.get("InitiatorName", ""), keys.get("TargetName", "")
        kind = keys.get("SessionType", "Normal")
        if not initiator:
            raise RefusedError(MISSING_PARAMETER, "it does not say its name")
        if len(initiator.encode()) > NAME_BYTES_MAX or not initiator.isprintable() or " " in initiator:
            raise RefusedError(INITIATOR_ERROR, f"{initiator[:40]!r} is no iSCSI name")
        if kind not in ("Normal", "Discovery"):
            raise RefusedError(UNSUPPORTED_SESSION_TYPE, f"a session of type {kind[:40]!r}")
        if kind == "Normal" and not target:
            raise RefusedError(MISSING_PARAMETER, "it does not say which target it wants")
        self.identity = Identity(
            initiator, header[8:14], target if kind == "Normal" else "", int.from_bytes(header[14:16], "big"), None
        )
        self.connection = int.from_bytes(header[20:22], "big")
        if self.rules.initiators is not None and initiator not in self.rules.initiators:
            raise RefusedError(FORBIDDEN, f"{initiator} is not among the initiators that may come in")
        if kind == "Discovery":
            return {}
        if target not in self.rules.targets:
            raise RefusedError(NOT_FOUND, f"there is no target {target[:80]!r}")
        elsewhere = self.rules.redirect(target)
        if elsewhere:
            raise RefusedError(MOVED_TEMPORARILY, f"{target} is served by {elsewhere} now", {"TargetAddress": elsewhere})
        return {"TargetPortalGroupTag": str(self.rules.portal_group)}

    def secure(self, keys: dict[str, str]) -> dict[str, str]:
        """The security stage: nothing, or CHAP."""
        answers: dict[str, str] = {}
        if "AuthMethod" in keys:
            offered = keys["AuthMethod"].split(",")
            wanted = "CHAP" if self.rules.credentials is not None else "None"
            if wanted not in offered or self.chap is not None:
                methods = keys["AuthMethod"][:40]
                raise RefusedError(AUTHENTICATION_FAILED, f"it offers to prove itself by {methods!r}, we ask for {wanted}")
            answers["AuthMethod"] = wanted
            if self.rules.credentials is not None:
                self.chap = Exchange(self.rules.credentials, self.random) if self.random else Exchange(self.rules.credentials)
        chap_keys = {key: value for key, value in keys.items() if key.startswith("CHAP_")}
        if chap_keys:
            if self.chap is None:
                raise RefusedError(AUTHENTICATION_FAILED, "it sends CHAP keys that nobody asked for")
            try:
                answers |= self.chap.step(chap_keys)
            except ChapError as error:
                raise RefusedError(AUTHENTICATION_FAILED, str(error)) from None
            if self.chap.name is not None:
                assert self.identity is not None
                self.is_proven, self.identity = True, self.identity._replace(chap_name=self.chap.name)
        return answers

    def operate(self, keys: dict[str, str], stage: int) -> dict[str, str]:
        """Every key that is not of the stages above is negotiated once."""
        assert self.identity is not None
        answers: dict[str, str] = {}
        for key, value in keys.items():
            if key in DECLARED or key == "AuthMethod" or key.startswith("CHAP_"):
                continue
            if key in self.negotiated:
                raise RefusedError(INITIATOR_ERROR, f"it negotiates {key} twice")
            self.negotiated.add(key)
            answer, self.terms = negotiate(self.terms, self.rules.offer, key, value, self.identity.is_discovery)
            if answer is not None:
                answers[key] = answer
        if stage == OPERATIONAL and not self.has_declared:
            self.has_declared = True
            answers["MaxRecvDataSegmentLength"] = str(self.rules.offer.segment)
            self.terms = replace(self.terms, target_segment=self.rules.offer.segment)
        return answers

    def finish(self) -> None:
        """The session begins, if the target lets it."""
        assert self.identity is not None
        joined = self.rules.join(self.identity)
        if joined.status != SUCCESS:
            raise RefusedError(joined.status, f"the target does not take the session: {joined.status:#06x}")
        self.session = joined.session
