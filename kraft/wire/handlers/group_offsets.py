"""OffsetCommit, OffsetFetch and TxnOffsetCommit (8, 9, 28): where groups stand. Partitions are refused one by one, as
Kafka does.

Source: KafkaApis.handleOffsetCommitRequest, handleOffsetFetchRequest and handleTxnOffsetCommitRequest,
OffsetMetadataManager.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupIdNotFound,
    IllegalGeneration,
    InvalidGroupId,
    KafkaError,
    NotCoordinator,
    OffsetMetadataTooLarge,
    UnknownTopicId,
    UnknownTopicOrPartition,
    UnstableOffsetCommit,
)
from kraft.protocol.messages.offset_commit_request import (
    OffsetCommitRequestData,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kraft.protocol.messages.offset_commit_response import (
    OffsetCommitResponseData,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kraft.protocol.messages.offset_fetch_request import OffsetFetchRequestData, OffsetFetchRequestGroup
from kraft.protocol.messages.offset_fetch_response import (
    OffsetFetchResponseData,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from kraft.protocol.messages.txn_offset_commit_request import TxnOffsetCommitRequestData
from kraft.protocol.messages.txn_offset_commit_response import (
    TxnOffsetCommitResponseData,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from kraft.protocol.primitives import TopicPartition
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts
from metadata.image import TopicImage

TOPIC_IDS_FROM = 10
"""OffsetCommit and OffsetFetch name topics by id (KIP-848)."""
GROUP_NOT_FOUND_FROM = 9
"""OffsetCommit: a generation of a group that is not there is GROUP_ID_NOT_FOUND 69; ILLEGAL_GENERATION 22 before."""
EPOCHS_FROM = 9
"""OffsetCommit and OffsetFetch are of a member in its epoch (KIP-848)."""
SEVERAL_GROUPS_FROM = 8
"""OffsetFetch: several groups, and an error for each (KIP-709)."""
TOP_ERROR_FROM = 2
"""OffsetFetch: an error of the group stands once in the answer; before, in each partition."""
ADDS_OFFSETS_FROM = 5
"""TxnOffsetCommit: the group need not have been added to the transaction before (KIP-890)."""
ABORTABLE_FROM = 4
"""TxnOffsetCommit: the error TRANSACTION_ABORTABLE 120."""
LOADING_KNOWN_FROM = 2
"""TxnOffsetCommit: older producers do not survive COORDINATOR_LOAD_IN_PROGRESS 14 (KAFKA-7296)."""
NO_OFFSET = -1


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    offsets = _Offsets(broker)
    return [
        ApiHandler(
            request=OffsetCommitRequestData,
            response=OffsetCommitResponseData,
            handle=offsets.commit,
            refuse=_refuse_commit,
        ),
        ApiHandler(
            request=OffsetFetchRequestData,
            response=OffsetFetchResponseData,
            handle=offsets.fetch,
            refuse=_refuse_fetch,
        ),
        ApiHandler(
            request=TxnOffsetCommitRequestData,
            response=TxnOffsetCommitResponseData,
            handle=offsets.commit_in_transaction,
            refuse=_refuse_in_transaction,
        ),
    ]


class _Offsets:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    @property
    def _ask(self) -> Callable[[r.Request], Awaitable[a.Answer]]:
        return self._broker.broker_or(NotCoordinator).group_coordinator.ask

    # --- commit -----------------------------------------------------------------------------------------------

    async def commit(self, call: Call[OffsetCommitRequestData]) -> OffsetCommitResponseData:
        message = call.message
        checked = [(topic, *self._checked(topic, version=call.version)) for topic in message.topics]
        offsets = [offset for _, _, offsets in checked for offset in offsets]
        codes = {code for _, codes, _ in checked for code in codes.values()}
        if codes & {0, OffsetMetadataTooLarge.code}:  # of partitions that exist: the group has a say
            try:
                await self._ask(
                    r.CommitOffsets(
                        group=message.group_id,
                        member_id=message.member_id,
                        generation=message.generation_id_or_member_epoch,
                        instance_id=message.group_instance_id,
                        knows_epochs=call.version >= EPOCHS_FROM,
                        retention_ms=message.retention_time_ms,
                        offsets=tuple(offsets),
                    )
                )
            except GroupIdNotFound as gone:
                if call.version >= GROUP_NOT_FOUND_FROM:
                    raise
                raise IllegalGeneration(gone.message) from gone
        return OffsetCommitResponseData.make(topics=[_committed(topic, codes) for topic, codes, _ in checked])

    def _checked(
        self, topic: OffsetCommitRequestTopic, *, version: int
    ) -> tuple[Mapping[int, int], list[r.OffsetToCommit]]:
        """Error codes by partition, and what can be committed."""
        numbers = [each.partition_index for each in topic.partitions]
        known = self._topic(topic.name, topic.topic_id, version=version)
        if known is None:
            code = (UnknownTopicId if version >= TOPIC_IDS_FROM else UnknownTopicOrPartition).code
            return dict.fromkeys(numbers, code), []
        codes = {each.partition_index: self._code_of(known, each) for each in topic.partitions}
        offsets = [
            r.OffsetToCommit(
                known.name,
                each.partition_index,
                each.committed_offset,
                each.committed_metadata or "",
                each.committed_leader_epoch,
            )
            for each in topic.partitions
            if not codes[each.partition_index]
        ]
        return codes, offsets

    def _topic(self, name: str, topic_id: UUID, *, version: int) -> TopicImage | None:
        image = self._broker.gateway.image
        return image.topics.get(topic_id) if version >= TOPIC_IDS_FROM else image.topic(name)

    def _code_of(self, topic: TopicImage, asked: OffsetCommitRequestPartition) -> int:
        if asked.partition_index not in topic.partitions:
            return UnknownTopicOrPartition.code
        return self._metadata_code(asked.committed_metadata)

    def _metadata_code(self, metadata: str | None) -> int:
        is_too_large = len((metadata or "").encode()) > self._broker.gateway.settings.offset_metadata_max_bytes
        return OffsetMetadataTooLarge.code if is_too_large else 0

    # --- commit in a transaction --------------------------------------------------------------------------------

    async def commit_in_transaction(self, call: Call[TxnOffsetCommitRequestData]) -> TxnOffsetCommitResponseData:
        """What of it may be committed is, until the transaction's marker it is pending."""
        message = call.message
        if not message.group_id:
            raise InvalidGroupId("a group has a name")
        codes: dict[TopicPartition, int] = {}
        offsets: list[r.OffsetToCommit] = []
        for topic in message.topics:
            known = self._broker.gateway.image.topic(topic.name)
            for each in topic.partitions:
                code = UnknownTopicOrPartition.code
                if known is not None and each.partition_index in known.partitions:
                    code = self._metadata_code(each.committed_metadata)
                codes[topic.name, each.partition_index] = code
                if not code:
                    offsets.append(
                        r.OffsetToCommit(
                            topic.name,
                            each.partition_index,
                            each.committed_offset,
                            each.committed_metadata or "",
                            each.committed_leader_epoch,
                        )
                    )
        if set(codes.values()) & {0, OffsetMetadataTooLarge.code}:
            await self._ask(
                r.CommitInTransaction(
                    group=message.group_id,
                    transactional_id=message.transactional_id,
                    producer_id=message.producer_id,
                    producer_epoch=message.producer_epoch,
                    adds_partition=call.version >= ADDS_OFFSETS_FROM,
                    knows_abortable=call.version >= ABORTABLE_FROM,
                    member_id=message.member_id,
                    generation=message.generation_id_or_member_epoch,
                    instance_id=message.group_instance_id,
                    offsets=tuple(offsets),
                )
            )
        return _committed_in_transaction(message, codes)

    # --- fetch ------------------------------------------------------------------------------------------------

    async def fetch(self, call: Call[OffsetFetchRequestData]) -> OffsetFetchResponseData:
        """With require_stable (KIP-447) a partition whose offset an open transaction may change is
        UNSTABLE_OFFSET_COMMIT 88: the consumer asks again."""
        if call.version >= SEVERAL_GROUPS_FROM:
            groups = [await self._fetch_group(each, call) for each in call.message.groups]
            return OffsetFetchResponseData.make(groups=groups)
        message = call.message
        asked = None
        if message.topics is not None:
            asked = tuple([(topic.name, number) for topic in message.topics for number in topic.partition_indexes])
        fetch = r.FetchOffsets(group=message.group_id, partitions=asked, requires_stable=message.require_stable)
        rows = _by_topic(await self._rows(fetch))
        topics = [] if message.topics is None else [topic.name for topic in message.topics]
        names = rows if message.topics is None else dict.fromkeys(topics)
        return OffsetFetchResponseData.make(
            topics=[
                OffsetFetchResponseTopic.make(
                    name=name,
                    partitions=[
                        OffsetFetchResponsePartition.make(
                            partition_index=row.partition,
                            committed_offset=row.offset,
                            committed_leader_epoch=row.leader_epoch,
                            metadata=row.metadata,
                            error_code=_stability(row),
                        )
                        for row in rows.get(name, ())
                    ],
                )
                for name in names
            ]
        )

    async def _rows(self, request: r.FetchOffsets) -> Sequence[a.OffsetOfGroup]:
        answer = await self._ask(request)
        assert isinstance(answer, a.GroupOffsets), answer
        return answer.offsets

    async def _fetch_group(
        self, group: OffsetFetchRequestGroup, call: Call[OffsetFetchRequestData]
    ) -> OffsetFetchResponseGroup:
        try:
            if group.topics is None:
                topics = await self._all_of(group, call)
            else:
                topics = await self._asked_of(group, call)
        except KafkaError as error:
            return _refused_group(group.group_id, error)
        return OffsetFetchResponseGroup.make(group_id=group.group_id, topics=topics)

    async def _all_of(
        self, group: OffsetFetchRequestGroup, call: Call[OffsetFetchRequestData]
    ) -> Sequence[OffsetFetchResponseTopics]:
        found = []
        image = self._broker.gateway.image
        fetch = _fetch(group, None, requires_stable=call.message.require_stable)
        for name, rows in _by_topic(await self._rows(fetch)).items():
            topic = image.topic(name)
            if call.version < TOPIC_IDS_FROM:
                found.append(OffsetFetchResponseTopics.make(name=name, partitions=_partitions(rows)))
            elif topic is not None:
                found.append(OffsetFetchResponseTopics.make(topic_id=topic.topic_id, partitions=_partitions(rows)))
        return found

    async def _asked_of(
        self, group: OffsetFetchRequestGroup, call: Call[OffsetFetchRequestData]
    ) -> Sequence[OffsetFetchResponseTopics]:
        version = call.version
        names: list[str | None] = []
        for topic in group.topics or ():
            if version < TOPIC_IDS_FROM:
                names.append(topic.name)
            else:
                known = self._topic(topic.name, topic.topic_id, version=version)
                names.append(None if known is None else known.name)
        # As in Kafka, topics whose id is unknown come behind the others.
        pairs = sorted(zip(group.topics or (), names, strict=True), key=lambda pair: pair[1] is None)
        asked = tuple(
            [(name, number) for topic, name in pairs if name is not None for number in topic.partition_indexes]
        )
        fetch = _fetch(group, asked, requires_stable=call.message.require_stable)
        offsets = {(row.topic, row.partition): row for row in await self._rows(fetch)}
        return [
            OffsetFetchResponseTopics.make(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=_unknown_id(topic.partition_indexes)
                if name is None
                else _partitions([offsets[name, number] for number in topic.partition_indexes]),
            )
            for topic, name in pairs
        ]


def _committed(topic: OffsetCommitRequestTopic, codes: Mapping[int, int]) -> OffsetCommitResponseTopic:
    return OffsetCommitResponseTopic.make(
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=[
            OffsetCommitResponsePartition.make(
                partition_index=each.partition_index, error_code=codes[each.partition_index]
            )
            for each in topic.partitions
        ],
    )


def _refuse_commit(message: OffsetCommitRequestData, version: int, error: KafkaError) -> OffsetCommitResponseData:
    return OffsetCommitResponseData.make(
        topics=[
            _committed(topic, dict.fromkeys([each.partition_index for each in topic.partitions], error.code))
            for topic in message.topics
        ]
    )


def _committed_in_transaction(
    message: TxnOffsetCommitRequestData, codes: Mapping[TopicPartition, int]
) -> TxnOffsetCommitResponseData:
    return TxnOffsetCommitResponseData.make(
        topics=[
            TxnOffsetCommitResponseTopic.make(
                name=topic.name,
                partitions=[
                    TxnOffsetCommitResponsePartition.make(
                        partition_index=each.partition_index, error_code=codes[topic.name, each.partition_index]
                    )
                    for each in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )


def _refuse_in_transaction(
    message: TxnOffsetCommitRequestData, version: int, error: KafkaError
) -> TxnOffsetCommitResponseData:
    """The answer with an error. CONCURRENT_TRANSACTIONS becomes COORDINATOR_LOAD_IN_PROGRESS, after which producers ask
    this coordinator again."""
    code = error.code
    if code == ConcurrentTransactions.code:
        code = CoordinatorLoadInProgress.code
    if code == CoordinatorLoadInProgress.code and version < LOADING_KNOWN_FROM:
        code = CoordinatorNotAvailable.code
    partitions = ((topic.name, each.partition_index) for topic in message.topics for each in topic.partitions)
    return _committed_in_transaction(message, dict.fromkeys(partitions, code))


def _fetch(
    group: OffsetFetchRequestGroup, asked: tuple[TopicPartition, ...] | None, *, requires_stable: bool
) -> r.FetchOffsets:
    return r.FetchOffsets(
        group=group.group_id,
        partitions=asked,
        member_id=group.member_id,
        member_epoch=group.member_epoch,
        requires_stable=requires_stable,
    )


def _by_topic(rows: Iterable[a.OffsetOfGroup]) -> dict[str, list[a.OffsetOfGroup]]:
    found: dict[str, list[a.OffsetOfGroup]] = {}
    for row in rows:
        found.setdefault(row.topic, []).append(row)
    return found


def _partitions(rows: Iterable[a.OffsetOfGroup]) -> Sequence[OffsetFetchResponsePartitions]:
    return [
        OffsetFetchResponsePartitions.make(
            partition_index=row.partition,
            committed_offset=row.offset,
            committed_leader_epoch=row.leader_epoch,
            metadata=row.metadata,
            error_code=_stability(row),
        )
        for row in rows
    ]


def _stability(row: a.OffsetOfGroup) -> int:
    return UnstableOffsetCommit.code if row.is_unstable else 0


def _unknown_id(numbers: Iterable[int]) -> Sequence[OffsetFetchResponsePartitions]:
    return [
        OffsetFetchResponsePartitions.make(
            partition_index=number, committed_offset=NO_OFFSET, error_code=UnknownTopicId.code
        )
        for number in numbers
    ]


def _refused_group(group: str, error: KafkaError) -> OffsetFetchResponseGroup:
    return OffsetFetchResponseGroup.make(group_id=group, error_code=error.code)


def _refuse_fetch(message: OffsetFetchRequestData, version: int, error: KafkaError) -> OffsetFetchResponseData:
    if version >= SEVERAL_GROUPS_FROM:
        return OffsetFetchResponseData.make(groups=[_refused_group(each.group_id, error) for each in message.groups])
    if version >= TOP_ERROR_FROM:
        return OffsetFetchResponseData.make(error_code=error.code)
    return OffsetFetchResponseData.make(
        topics=[
            OffsetFetchResponseTopic.make(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition.make(
                        partition_index=number, committed_offset=NO_OFFSET, error_code=error.code
                    )
                    for number in topic.partition_indexes
                ],
            )
            for topic in message.topics or ()
        ]
    )
