"""Every request about a transaction, in each phase of it, from each producer: what is asked, and the table of answers.

A phase is a way to get there, in steps that a client takes; the same steps are taken at Apache Kafka over the wire
(`record_transactions.py`) and by our decisions (`tests/unit/coordinators/test_transaction_table.py`). PrepareEpochFence
is no phase: Kafka goes through it within one decision, so that no request finds it, and no log has it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

from kraft.coordinators.transactions.state import LAST_CLIENT_EPOCH

TABLE = Path(__file__).parent / "transactions-4.4.0.txt"


class Until(Enum):
    """How far the last step comes before anything is asked."""

    COMPLETE = "complete"
    HELD = "held"
    """Its markers cannot be written: the only partition is at a broker that is gone."""
    PENDING = "pending"
    """Its record is in the log and not replicated, so the client has no answer to it yet."""
    LOADED = "loaded"
    """Complete, or held; another broker has become the coordinator since."""


class Way(NamedTuple):
    """Steps: `init` takes the id over; `raise` is InitProducerId of its own producer; `add3` is AddPartitionsToTxn 3
    and `add5` what a broker asks for a Produce 12; `end4-commit` is EndTxn 4; `go-on` takes the producer that EndTxn 5
    has answered; `fence` is InitProducerId of a new instance while a transaction is open; `time-over` waits until the
    transaction was open for too long."""

    steps: str
    until: Until = Until.COMPLETE
    is_near_end: bool = False
    """The producer id has three epochs left when the steps begin."""
    has_partition: bool = False
    """Of a broker that is gone, for `LOADED`."""

    @property
    def is_held(self) -> bool:
        return self.until is Until.HELD or self.has_partition

    @property
    def name(self) -> str:
        start = "near the end: " if self.is_near_end else ""
        held = ", held" if self.has_partition else ""
        return f"{start}{self.steps or 'nothing'}{held}, {self.until.value}"

    @property
    def settled(self) -> Way:
        """What a pending one becomes, or what is answered as that is."""
        *steps, last = self.steps.split()
        if last in ("init", "raise"):
            return Way(" ".join([*steps[:-1], last]))
        if last in ("add3", "add5"):
            return Way(" ".join([*steps, last] if last not in steps else steps))
        return Way(self.steps if "add" in self.steps else f"init init add5 {last}", Until.HELD)


def _ways() -> Iterator[Way]:
    for steps in ("", "init init", "init raise", "init init add3", "init init add5", "init init end5-abort"):
        yield Way(steps)
    yield Way("init init add5 end5-commit go-on add5")
    yield Way("init init add5 fence init")
    ended = [f"{add} {end}" for add, end in _ENDS]
    for steps in ended:
        yield Way(f"init init {steps}")
        yield Way(f"init init {steps}", Until.HELD)
    last = ("init", "raise", "add5", "add3", "end5-abort", "add5 add5", *(each for each in ended if "time" not in each))
    for steps in last:
        yield Way(f"init init {steps}", Until.PENDING)
    for steps in ("", "init", "raise", "add5", "add5 end5-commit go-on add5", "add5 fence init", "end5-abort"):
        yield Way(f"init init {steps}".strip(), is_near_end=True)
    for steps in ended:
        yield Way(f"init init {steps}", is_near_end=True)
        yield Way(f"init init {steps}", Until.HELD, is_near_end=True)
    for steps in ("init init", "init raise", "init init add5", *(f"init init {each}" for each in ended)):
        yield Way(steps, Until.LOADED)
    for steps in ("add5 end5-commit", "add5 end5-abort", "add3 end4-commit"):
        yield Way(f"init init {steps}", Until.LOADED, has_partition=True)


_ENDS = (
    ("add3", "end4-commit"),
    ("add3", "end4-abort"),
    ("add5", "end5-commit"),
    ("add5", "end5-abort"),
    ("add5", "fence"),
    ("add3", "fence"),
    ("add5", "time-over"),
)
WAYS = tuple(_ways())
FIRST_SEED_EPOCH = LAST_CLIENT_EPOCH - 2
"""Of a producer id near its end, before the steps begin."""

NOBODY = "-"
PRODUCERS = (NOBODY, "p:n-1", "p:n", "p:n+1", "p:n+2", "q:0", "q:1", "other:n")
"""Who asks: nobody that is named; `p` with the epoch `n` with which the steps were taken, and epochs around it; `q`,
the producer id that came after `p` in the steps; a producer id that was never given."""
REQUESTS = (
    "InitProducerId",
    "AddPartitionsToTxn 3",
    "AddPartitionsToTxn 5",
    "AddPartitionsToTxn 5 verifies in it",
    "AddPartitionsToTxn 5 verifies not in it",
    "AddOffsetsToTxn 4",
    "EndTxn 4 commit",
    "EndTxn 4 abort",
    "EndTxn 5 commit",
    "EndTxn 5 abort",
    "Produce 11",
    "Produce 12",
    "TxnOffsetCommit 4",
    "TxnOffsetCommit 5",
)
NOT_ASKED = "."


class Id(NamedTuple):
    producer_id: int
    epoch: int


class Names:
    """Of producer ids and epochs in one run, as they stand in the table."""

    def __init__(self, known: Id | None, following: int | None) -> None:
        """`known`: the producer with which the steps were taken; `following`: the producer id after it, if any."""
        self._known = known
        self._ids = [] if known is None else [known.producer_id]
        if following is not None and following not in self._ids:
            self._ids.append(following)

    def producer(self, name: str) -> Id | None:
        """None where that name says nobody, or nobody that there could be."""
        if name == "-" or self._known is None:
            return Id(UNKNOWN_PRODUCER_ID, 0) if name == "other:n" else None
        who, _, epoch = name.partition(":")
        if who == "other":
            return Id(UNKNOWN_PRODUCER_ID, self._known.epoch)
        if who == "q":
            return Id(self._ids[1], int(epoch)) if len(self._ids) > 1 else None
        number = self._known.epoch + int(epoch.removeprefix("n") or 0)
        return Id(self._known.producer_id, number) if 0 <= number < 2**15 else None

    def of(self, given: Id) -> str:
        if given.producer_id not in self._ids:
            self._ids.append(given.producer_id)
        at = self._ids.index(given.producer_id)
        if at or self._known is None:
            return f"{'pqrs'[at]}:{given.epoch}"
        ahead = given.epoch - self._known.epoch
        return f"p:n{ahead:+d}" if ahead else "p:n"


CONCURRENT = 51
UNKNOWN_PRODUCER_ID = 2_000_000_000


class Story(ABC):
    """A transactional id that a client uses, step by step. Each request gives the error code, and the producer where
    one is answered."""

    def __init__(self) -> None:
        self.known: Id | None = None
        """The producer that the columns are about."""
        self.following: int | None = None
        """The producer id after it, once there is one."""
        self._current: Id | None = None
        self._ended: Id | None = None
        self._has_moved = False
        self._added = count()

    def take(self, step: str) -> None:
        kind, _, how = step.partition("-")
        code = 0
        if step in ("init", "raise"):
            code, given = self.init(self._current if step == "raise" else None)
            self._go_on(given)
        elif step == "go-on":
            assert self._ended is not None
            self._has_moved = True
            self._go_on(self._ended)
        elif step == "fence":
            code = self.init(None)[0] - CONCURRENT
            self._has_moved = True
        elif step == "time-over":
            self.let_time_pass()
        elif kind in ("add3", "add5"):
            code = self.add(self._its_own(), int(kind[-1]), next(self._added))
        else:
            code, self._ended = self.end(self._its_own(), int(kind[-1]), commits=how == "commit")
        assert code == 0, (step, code)
        assert self.known is not None
        if (producer_id := self.settled()) != self.known.producer_id:
            self.following = producer_id

    def _go_on(self, given: Id) -> None:
        self._current = given
        if self.known is None or (given.producer_id == self.known.producer_id and not self._has_moved):
            self.known = given

    def _its_own(self) -> Id:
        assert self._current is not None
        return self._current

    def asked(self, request: str, producer: Id | None) -> tuple[int, Id | None]:
        api, *words = request.split()
        if api == "InitProducerId":
            return self.init(producer)
        assert producer is not None, request
        version = int(words[0])
        if api == "EndTxn":
            return self.end(producer, version, commits=words[-1] == "commit")
        if api == "AddPartitionsToTxn":
            number = 0 if request.endswith("verifies in it") else None
            return self.add(producer, version, number, is_verifying="verifies" in words), None
        send = {"AddOffsetsToTxn": self.add_offsets, "Produce": self.produce, "TxnOffsetCommit": self.commit_offsets}
        return send[api](producer, version), None

    @abstractmethod
    def init(self, producer: Id | None) -> tuple[int, Id]: ...

    @abstractmethod
    def add(self, producer: Id, version: int, number: int | None, *, is_verifying: bool = False) -> int:
        """The partition that the step of this number adds, or None for one that no step adds."""

    @abstractmethod
    def add_offsets(self, producer: Id, version: int) -> int: ...

    @abstractmethod
    def end(self, producer: Id, version: int, *, commits: bool) -> tuple[int, Id | None]: ...

    @abstractmethod
    def produce(self, producer: Id, version: int) -> int: ...

    @abstractmethod
    def commit_offsets(self, producer: Id, version: int) -> int: ...

    @abstractmethod
    def let_time_pass(self) -> None:
        """Until the open transaction is aborted."""

    @abstractmethod
    def settled(self) -> int:
        """Waits for markers that can be written; the producer id then."""


def ask_all(stories: Iterator[Story], *, is_fixed: bool) -> Answers:
    """The first of the stories is asked until an answer may have changed it, then the next. `is_fixed`: an answer of
    CONCURRENT_TRANSACTIONS 51 has changed nothing."""
    story = next(stories)
    found: dict[str, dict[str, str]] = {}
    for request, column in product(REQUESTS, PRODUCERS):
        names = Names(story.known, story.following)
        producer = names.producer(column)
        cells = found.setdefault(request, {})
        if producer is None and (column != NOBODY or request != "InitProducerId"):
            cells[column] = NOT_ASKED
            continue
        code, given = story.asked(request, producer)
        cells[column] = names.of(given) if given is not None and code == 0 else str(code)
        if code == 0 or (code == CONCURRENT and not is_fixed):
            story = next(stories)
    return found


Answers = Mapping[str, Mapping[str, str]]
"""Request -> producer -> error code, or the producer that is given, or 0."""


def write(table: Mapping[str, Answers], head: Sequence[str], path: Path = TABLE) -> None:
    lines = [f"# {line}".rstrip() for line in head]
    for way, answers in table.items():
        asked = [name for name in PRODUCERS if any(row.get(name, NOT_ASKED) != NOT_ASKED for row in answers.values())]
        lines += ["", f"[{way}]", _line("", asked)]
        lines += [_line(request, [row.get(name, NOT_ASKED) for name in asked]) for request, row in answers.items()]
    path.write_text("\n".join(lines) + "\n")


def _line(request: str, cells: Sequence[str]) -> str:
    return f"{request:40}" + "".join(f"{cell:9}" for cell in cells).rstrip()


def read(path: Path = TABLE) -> dict[str, Answers]:
    found: dict[str, dict[str, dict[str, str]]] = {}
    names: list[str] = []
    way: dict[str, dict[str, str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            way = found.setdefault(line[1:-1], {})
        elif line.startswith(" "):
            names = line.split()
        elif line and not line.startswith("#"):
            way[line[:40].strip()] = dict(zip(names, line[40:].split(), strict=True))
    return dict(found)
