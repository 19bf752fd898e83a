"""The client of Gesell: signed payments on a ledger whose idle money melts.

    async with Client("http://127.0.0.1:8420", commons="…hex…", peer=Peer.load("ada.key")) as gesell:
        receipt = await gesell.pay("bob", "0.05", category="answer")
        print(receipt.seq, await gesell.balance())

Owns what an application needs to pay, to be paid and to look after an account. Needs no part of the ledger.
"""

from gesell.amount import Amount, AmountLike
from gesell.answers import Balance, Commons, Entry, GiftCount, HistoryLine, Kind, Member, Service
from gesell.bodies import default_policy
from gesell.check_errors import CheckFailed, Equivocation, MemoryFileError, NotInLog, Unchecked, Unwitnessed, WrongKey
from gesell.checking import Checked
from gesell.client import Client
from gesell.custodian import Custodian
from gesell.errors import (
    AlreadyMember,
    BadSignature,
    BadToken,
    BadWord,
    Expired,
    GesellError,
    HandleTaken,
    IdConflict,
    InsufficientFunds,
    Internal,
    KeyFileError,
    KeyTaken,
    LimitExceeded,
    Malformed,
    MethodNotAllowed,
    NoKeyFile,
    NotActive,
    NotAuthorised,
    NotCanonical,
    NotFound,
    OutcomeUnknown,
    PassphraseNeeded,
    RateLimited,
    ReceiptMismatch,
    Refused,
    StatementFileError,
    Timeout,
    TooEarly,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    UnknownCommons,
    UnknownMember,
    Unreachable,
    UnsupportedMediaType,
    VouchInUse,
    WrongLedger,
    WrongPassphrase,
    WrongState,
)
from gesell.gifts import Gift, Moved
from gesell.joint import load_statement, save_statement
from gesell.memory import FolderMemory, Memory
from gesell.payto import BadLink, PaymentRequest
from gesell.peer import Peer, PeerLike
from gesell.readings import (
    ChainLink,
    Flow,
    FlowStep,
    Gifts,
    Part,
    Payments,
    Relationship,
    Standing,
    Thanked,
    Trust,
    Trusted,
)
from gesell.results import Result
from gesell.webhooks import Webhook
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import Posting
from gesell_protocol.policy import Policy
from gesell_protocol.receipts import Receipt

__all__ = [
    "AlreadyMember",
    "Amount",
    "AmountLike",
    "BadLink",
    "BadSignature",
    "BadToken",
    "BadWord",
    "Balance",
    "ChainLink",
    "CheckFailed",
    "Checked",
    "Client",
    "Commons",
    "Custodian",
    "Entry",
    "Envelope",
    "Equivocation",
    "Expired",
    "Flow",
    "FlowStep",
    "FolderMemory",
    "GesellError",
    "Gift",
    "GiftCount",
    "Gifts",
    "HandleTaken",
    "HistoryLine",
    "IdConflict",
    "InsufficientFunds",
    "Internal",
    "KeyFileError",
    "KeyTaken",
    "Kind",
    "LimitExceeded",
    "Malformed",
    "Member",
    "Memory",
    "MemoryFileError",
    "MethodNotAllowed",
    "Moved",
    "NoKeyFile",
    "NotActive",
    "NotAuthorised",
    "NotCanonical",
    "NotFound",
    "NotInLog",
    "OutcomeUnknown",
    "Part",
    "PassphraseNeeded",
    "PaymentRequest",
    "Payments",
    "Peer",
    "PeerLike",
    "Policy",
    "Posting",
    "RateLimited",
    "Receipt",
    "ReceiptMismatch",
    "Refused",
    "Relationship",
    "Result",
    "Service",
    "Standing",
    "StatementFileError",
    "Thanked",
    "Timeout",
    "TooEarly",
    "TooLarge",
    "Trust",
    "Trusted",
    "Unavailable",
    "Unchecked",
    "UnexpectedAnswer",
    "UnknownCommons",
    "UnknownMember",
    "Unreachable",
    "UnsupportedMediaType",
    "Unwitnessed",
    "VouchInUse",
    "Webhook",
    "WrongKey",
    "WrongLedger",
    "WrongPassphrase",
    "WrongState",
    "default_policy",
    "load_statement",
    "save_statement",
]
