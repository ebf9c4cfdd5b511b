"""What a produce request asks for beside its records: read once, before its body, for the handler of the route.

`min_isr` is a request's own min.insync.replicas: with fewer in the ISR nothing is sent (19); with fewer when the
records were replicated they are in the log, and their error is 20. It can ask for more than the topic, never less.
"""

from __future__ import annotations

from kraft.http.batch_sender import AS_THEY_ARE, BatchSender
from kraft.http.endpoint import Call, Parameter
from kraft.http.idempotency import idempotency_key
from kraft.http.media import Format
from kraft.http.parameters import TIMEOUT, flag, integer
from kraft.http.transactional import InTransaction
from kraft.protocol.acks import ACKS_ALL, ACKS_LEADER, ACKS_NONE
from kraft.protocol.errors import InvalidRequiredAcks
from kraft.protocol.media_types import PLAIN_JSON
from kraft.values import new, value
from replication.requests import ProduceOptions

_ACKS = {"0": ACKS_NONE, "1": ACKS_LEADER, "all": ACKS_ALL, "-1": ACKS_ALL}
REPLICAS_MAX = 32_767

ACKS = Parameter(
    name="acks",
    description="Who must have the records before the answer: nobody (0), the leader (1), all in-sync replicas (all).",
    schema={"type": "string", "enum": list(_ACKS), "default": "all"},
)
ASYNC = Parameter(
    name="async",
    description="true: acks=0, answered 204 without a body, as the Strimzi bridge does.",
    schema={"type": "boolean", "default": False},
)
MIN_ISR = Parameter(
    name="min_isr",
    description="With acks=all: the least ISR that must have the records, if more than min.insync.replicas.",
    schema={"type": "integer", "minimum": 1, "maximum": REPLICAS_MAX},
)
PARAMETERS = (ACKS, TIMEOUT, MIN_ISR)
"""The query parameters of every produce."""


@value(kw_only=True)
class ProduceParams:
    """One request's wishes, whichever dialect it speaks."""

    options: ProduceOptions
    min_isr: int
    """The least ISR that must have the records; 0 where none is asked for, or acks is not all."""
    is_async: bool
    """`async=true`: acks=0, and an answer without a body."""
    sender: BatchSender
    """How the batches are sent: as they are, with the producer of an `Idempotency-Key`, or in a transaction."""
    form: Format
    """What the body is made of."""
    answer_type: str
    """Content-Type of the answer."""


def read_params(
    call: Call,
    *,
    form: Format = Format.JSON,
    answer_type: str = PLAIN_JSON,
    sender: BatchSender | None = None,
) -> ProduceParams:
    """What the request asks for; a check returns it to the handler.

    `form` and `answer_type` are what the dialect has agreed on with the client; without a `sender` the request's
    Idempotency-Key decides. Raises KafkaError 21 for unknown acks, and for others than all within a transaction;
    HttpError 40002 for numbers out of range, HttpError 400 for a key or a client that is none.
    """
    query = call.request.query
    is_async = ASYNC.name in query and flag(call, ASYNC.name)
    acks = ACKS_NONE if is_async else _acks(query.get(ACKS.name, "all"))
    transactional_id = None
    if isinstance(sender, InTransaction):
        transactional_id = sender.transactional_id
        if acks != ACKS_ALL:
            raise InvalidRequiredAcks("records of a transaction need acks=all, which is the default")
    default_ms = call.context.gateway.settings.request_timeout_ms
    timeout_ms = integer(call, TIMEOUT.name, default=default_ms) if TIMEOUT.name in query else default_ms
    min_isr = integer(call, MIN_ISR.name, default=0, low=1, high=REPLICAS_MAX) if MIN_ISR.name in query else 0
    made = new(ProduceParams)
    ProduceParams.__init__(
        made,
        options=ProduceOptions(acks, timeout_ms, transactional_id),
        min_isr=min_isr if acks == ACKS_ALL else 0,
        is_async=is_async,
        sender=sender or idempotency_key(call) or AS_THEY_ARE,
        form=form,
        answer_type=answer_type,
    )
    return made


def _acks(text: str) -> int:
    acks = _ACKS.get(text)
    if acks is None:
        raise InvalidRequiredAcks(f"acks={text} is not known; it is one of 0, 1, all (or -1)")
    return acks
