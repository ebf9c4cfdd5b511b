"""A metadata image as bytes, for the quorum's snapshots and for observers that are too far behind.

Equal images give equal bytes. Format: the 8 bytes `KRAFTIMG`, version (u8), CRC-32 of the body (u32, big-endian),
then the body: one JSON object with sorted keys. Anything else is refused with `CorruptSnapshot`. Pure.
Version 2 is for an image with an open transaction, in the field `transaction`; version 3 for one with ACLs or quotas,
so that no program that does not know them ignores them; version 4 for one with routes; all others have version 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from kraft.protocol.scram import Credential
from metadata.acls import Acl, AclOperation, AclPattern, AclPermission, AclResource
from metadata.image import (
    BrokerImage,
    MetadataImage,
    OpenTransaction,
    PartitionImage,
    TopicImage,
    acls_map,
    brokers_map,
    configs_map,
    quotas_map,
    routes_map,
    topic_ids_map,
    topics_map,
    users_map,
)
from metadata.records import LeaderRecovery, UncleanElectionReport, decode_record, encode_record
from metadata.routes import Binding, RouteImage, RouteKind

MAGIC = b"KRAFTIMG"
VERSION = 1
VERSION_WITH_TRANSACTION = 2
VERSION_WITH_SECURITY = 3
VERSION_WITH_ROUTES = 4
NEWEST_VERSION = VERSION_WITH_ROUTES
_HEADER = struct.Struct(">8sBI")


class CorruptSnapshot(ValueError):
    """These bytes are no snapshot of a metadata image, or have an unknown version."""


def encode_image(image: MetadataImage) -> bytes:
    fields: dict[str, Any] = {
        "offset": image.offset,
        "controller_epoch": image.controller_epoch,
        "controller_id": image.controller_id,
        "next_producer_id": image.next_producer_id,
        "brokers": [_broker_fields(image.brokers[broker_id]) for broker_id in sorted(image.brokers)],
        "topics": [_topic_fields(topic) for topic in image.topics_by_name.values()],
        "configs": [[kind, name, dict(image.configs[kind, name])] for kind, name in sorted(image.configs)],
    }
    version = VERSION
    if image.transaction is not None:
        version, fields["transaction"] = VERSION_WITH_TRANSACTION, _transaction_fields(image.transaction)
    if image.acls or image.quotas or image.users:
        version = VERSION_WITH_SECURITY
        fields["acls"] = [_acl_fields(acl_id, image.acls[acl_id]) for acl_id in sorted(image.acls)]
        fields["quotas"] = sorted(([entity, dict(values)] for entity, values in image.quotas.items()), key=repr)
        fields["users"] = [_user_fields(name, image.users[name]) for name in sorted(image.users)]
    if image.routes:
        version = VERSION_WITH_ROUTES
        fields["routes"] = [_route_fields(image.routes[name]) for name in sorted(image.routes)]
    body = msgspec.json.encode(fields, order="sorted")
    return _HEADER.pack(MAGIC, version, zlib.crc32(body)) + body


def decode_image(data: bytes | bytearray | memoryview) -> MetadataImage:
    """The image of an encoded snapshot. Raises CorruptSnapshot."""
    body = _checked_body(memoryview(data))
    try:
        return _image(msgspec.json.decode(body))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptSnapshot(f"snapshot body does not describe an image: {error!r}") from error


def version_of(data: bytes | bytearray | memoryview) -> int:
    """The version in the header of an encoded image; 0 for bytes that are no image."""
    if len(data) < _HEADER.size:
        return 0
    magic, version, _ = _HEADER.unpack_from(data)
    return int(version) if magic == MAGIC else 0


def _checked_body(data: memoryview) -> memoryview:
    if len(data) < _HEADER.size:
        raise CorruptSnapshot(f"snapshot has {len(data)} bytes, less than its header of {_HEADER.size}")
    magic, version, crc = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptSnapshot(f"snapshot begins with {magic!r} instead of {MAGIC!r}")
    if not VERSION <= version <= NEWEST_VERSION:
        raise CorruptSnapshot(
            f"snapshot has version {version}; this node reads versions up to {NEWEST_VERSION}: it was "
            "written by a newer version of this program, which is needed to read it"
        )
    body = data[_HEADER.size :]
    if (actual := zlib.crc32(body)) != crc:
        raise CorruptSnapshot(f"snapshot has CRC {actual:#010x}, its header has {crc:#010x}: it is cut or damaged")
    return body


def _broker_fields(broker: BrokerImage) -> dict[str, Any]:
    fields = {
        "broker_id": broker.broker_id,
        "broker_epoch": broker.broker_epoch,
        "incarnation_id": str(broker.incarnation_id),
        "rest": broker.rest,
        "kafka": broker.kafka,
        "rack": broker.rack,
        "fenced": broker.fenced,
        "in_controlled_shutdown": broker.in_controlled_shutdown,
    }
    return fields | ({"listeners": dict(broker.listeners)} if broker.listeners else {})


def _topic_fields(topic: TopicImage) -> dict[str, Any]:
    partitions = [_partition_fields(topic.partitions[index]) for index in sorted(topic.partitions)]
    return {"name": topic.name, "topic_id": str(topic.topic_id), "partitions": partitions}


def _partition_fields(partition: PartitionImage) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "partition": partition.partition,
        "replicas": partition.replicas,
        "isr": partition.isr,
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "partition_epoch": partition.partition_epoch,
    }
    if partition.is_reassigning:
        fields["adding"] = partition.adding_replicas
        fields["removing"] = partition.removing_replicas
    if partition.leader_recovery is not LeaderRecovery.RECOVERED:
        fields["recovery"] = str(partition.leader_recovery)
    if partition.unclean is not None:
        fields["unclean"] = partition.unclean.model_dump(mode="json")
    return fields


def _acl_fields(acl_id: UUID, acl: Acl) -> list[Any]:
    return [
        str(acl_id), acl.resource, acl.name, acl.pattern, acl.principal, acl.host, acl.operation, acl.permission,
    ]  # fmt: skip


def _transaction_fields(transaction: OpenTransaction) -> dict[str, Any]:
    return {
        "name": transaction.name,
        "base_offset": transaction.base_offset,
        "records": [msgspec.Raw(encode_record(record)) for record in transaction.records],
    }


def _image(fields: dict[str, Any]) -> MetadataImage:
    topics = [_topic(topic) for topic in fields["topics"]]
    brokers = [_broker(broker) for broker in fields["brokers"]]
    return MetadataImage(
        offset=fields["offset"],
        controller_epoch=fields["controller_epoch"],
        controller_id=fields["controller_id"],
        next_producer_id=fields["next_producer_id"],
        brokers=brokers_map({broker.broker_id: broker for broker in brokers}),
        topics=topics_map({topic.topic_id: topic for topic in topics}),
        topic_ids=topic_ids_map({topic.name: topic.topic_id for topic in topics}),
        configs=configs_map({(kind, name): MappingProxyType(settings) for kind, name, settings in fields["configs"]}),
        acls=acls_map(dict(map(_acl, fields.get("acls", ())))),
        quotas=quotas_map(
            {
                tuple((kind, name) for kind, name in entity): MappingProxyType(values)
                for entity, values in fields.get("quotas", ())
            }
        ),
        users=users_map(dict(map(_user, fields.get("users", ())))),
        routes=routes_map({name: _route(name, *route) for name, *route in fields.get("routes", ())}),
        transaction=_transaction(fields["transaction"]) if "transaction" in fields else None,
    )


def _user_fields(name: str, credentials: Mapping[str, Credential]) -> list[Any]:
    return [
        name,
        [
            [each.mechanism, each.salt.hex(), each.iterations, each.stored_key.hex(), each.server_key.hex()]
            for each in credentials.values()
        ],
    ]


def _user(fields: Sequence[Any]) -> tuple[str, Mapping[str, Credential]]:
    name, credentials = fields
    made = [
        Credential(bytes.fromhex(salt), iterations, bytes.fromhex(stored), bytes.fromhex(server), mechanism)
        for mechanism, salt, iterations, stored, server in credentials
    ]
    return name, MappingProxyType({each.mechanism: each for each in made})


def _route_fields(route: RouteImage) -> list[Any]:
    return [route.name, route.kind, sorted(route.bindings)]


def _route(name: str, kind: str, bindings: Sequence[Sequence[str]]) -> RouteImage:
    return RouteImage(
        name=name, kind=RouteKind(kind), bindings=frozenset(Binding(key, topic) for key, topic in bindings)
    )


def _transaction(fields: dict[str, Any]) -> OpenTransaction:
    records = tuple(decode_record(msgspec.json.encode(record)) for record in fields["records"])
    return OpenTransaction(name=fields["name"], base_offset=fields["base_offset"], records=records)


def _acl(fields: list[Any]) -> tuple[UUID, Acl]:
    acl_id, resource, name, pattern, principal, host, operation, permission = fields
    return UUID(acl_id), Acl(
        resource=AclResource(resource),
        name=name,
        pattern=AclPattern(pattern),
        principal=principal,
        host=host,
        operation=AclOperation(operation),
        permission=AclPermission(permission),
    )


def _broker(fields: dict[str, Any]) -> BrokerImage:
    return BrokerImage(**{**fields, "incarnation_id": UUID(fields["incarnation_id"])})


def _topic(fields: dict[str, Any]) -> TopicImage:
    topic_id = UUID(fields["topic_id"])
    partitions = [_partition(topic_id, partition) for partition in fields["partitions"]]
    return TopicImage(
        name=fields["name"],
        topic_id=topic_id,
        partitions=MappingProxyType({partition.partition: partition for partition in partitions}),
    )


def _partition(topic_id: UUID, fields: dict[str, Any]) -> PartitionImage:
    unclean = fields.get("unclean")
    return PartitionImage(
        topic_id=topic_id,
        partition=fields["partition"],
        replicas=tuple(fields["replicas"]),
        isr=tuple(fields["isr"]),
        leader=fields["leader"],
        leader_epoch=fields["leader_epoch"],
        partition_epoch=fields["partition_epoch"],
        adding_replicas=tuple(fields.get("adding", ())),
        removing_replicas=tuple(fields.get("removing", ())),
        leader_recovery=LeaderRecovery(fields.get("recovery", LeaderRecovery.RECOVERED)),
        unclean=None if unclean is None else UncleanElectionReport.model_validate(unclean),
    )
