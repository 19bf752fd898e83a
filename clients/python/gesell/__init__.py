"""The client of Gesell: signed payments on a ledger whose idle money melts.

    async with Client("http://127.0.0.1:8420", commons="…hex…", peer=Peer.load("ada.key")) as gesell:
        receipt = await gesell.pay("bob", "0.05", category="answer")
        print(receipt.seq, await gesell.balance())

Owns what an application needs to pay, to be paid and to look after an account. Needs no part of the ledger.
"""

from gesell.amount import Amount as Amount
from gesell.amount import AmountLike as AmountLike
from gesell.answers import Balance as Balance
from gesell.answers import Commons as Commons
from gesell.answers import Entry as Entry
from gesell.answers import HistoryLine as HistoryLine
from gesell.answers import Member as Member
from gesell.answers import Service as Service
from gesell.client import Client as Client
from gesell.client import default_policy as default_policy
from gesell.custodian import Custodian as Custodian
from gesell.errors import (
    AlreadyMember as AlreadyMember,
)
from gesell.errors import (
    BadSignature as BadSignature,
)
from gesell.errors import (
    BadToken as BadToken,
)
from gesell.errors import (
    BadWord as BadWord,
)
from gesell.errors import (
    Expired as Expired,
)
from gesell.errors import (
    GesellError as GesellError,
)
from gesell.errors import (
    HandleTaken as HandleTaken,
)
from gesell.errors import (
    IdConflict as IdConflict,
)
from gesell.errors import (
    InsufficientFunds as InsufficientFunds,
)
from gesell.errors import (
    Internal as Internal,
)
from gesell.errors import (
    KeyFileError as KeyFileError,
)
from gesell.errors import (
    KeyTaken as KeyTaken,
)
from gesell.errors import (
    LimitExceeded as LimitExceeded,
)
from gesell.errors import (
    Malformed as Malformed,
)
from gesell.errors import (
    MethodNotAllowed as MethodNotAllowed,
)
from gesell.errors import (
    NoKeyFile as NoKeyFile,
)
from gesell.errors import (
    NotActive as NotActive,
)
from gesell.errors import (
    NotAuthorised as NotAuthorised,
)
from gesell.errors import (
    NotCanonical as NotCanonical,
)
from gesell.errors import (
    NotFound as NotFound,
)
from gesell.errors import (
    OutcomeUnknown as OutcomeUnknown,
)
from gesell.errors import (
    PassphraseNeeded as PassphraseNeeded,
)
from gesell.errors import (
    RateLimited as RateLimited,
)
from gesell.errors import (
    ReceiptMismatch as ReceiptMismatch,
)
from gesell.errors import (
    Refused as Refused,
)
from gesell.errors import (
    StatementFileError as StatementFileError,
)
from gesell.errors import (
    Timeout as Timeout,
)
from gesell.errors import (
    TooEarly as TooEarly,
)
from gesell.errors import (
    TooLarge as TooLarge,
)
from gesell.errors import (
    Unavailable as Unavailable,
)
from gesell.errors import (
    UnexpectedAnswer as UnexpectedAnswer,
)
from gesell.errors import (
    UnknownCommons as UnknownCommons,
)
from gesell.errors import (
    UnknownMember as UnknownMember,
)
from gesell.errors import (
    Unreachable as Unreachable,
)
from gesell.errors import (
    UnsupportedMediaType as UnsupportedMediaType,
)
from gesell.errors import (
    VouchInUse as VouchInUse,
)
from gesell.errors import (
    WrongLedger as WrongLedger,
)
from gesell.errors import (
    WrongPassphrase as WrongPassphrase,
)
from gesell.errors import (
    WrongState as WrongState,
)
from gesell.joint import load_statement as load_statement
from gesell.joint import save_statement as save_statement
from gesell.payto import BadLink as BadLink
from gesell.payto import PaymentRequest as PaymentRequest
from gesell.peer import Peer as Peer
from gesell.peer import PeerLike as PeerLike
from gesell.results import Result as Result
from gesell.webhooks import Webhook as Webhook
from gesell_protocol.envelopes import Envelope as Envelope
from gesell_protocol.log import Posting as Posting
from gesell_protocol.policy import Policy as Policy
from gesell_protocol.receipts import Receipt as Receipt
