"""Models of the v3 dialect: Confluent's shapes, with our additions at the end of each."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from kraft.http.body_models import Entries, Items, RequestBody, SettingText, whole_of
from kraft.http.extension_fields import ADDITION
from kraft.http.parameters import TOPIC_PATTERN
from kraft.protocol.primitives import INT32_MAX

Item = TypeVar("Item")


TopicName = Annotated[str, Field(json_schema_extra={"pattern": TOPIC_PATTERN})]
"""The pattern is shown only: what breaks it is answered with Kafka's error for a topic, not with that of a body."""
Timestamp = Annotated[str, Field(description="ISO-8601.", json_schema_extra={"format": "date-time"})]
BrokerId = Annotated[int, Field(ge=0, le=INT32_MAX)]
PartitionKey = Annotated[int, BeforeValidator(whole_of)]
"""A partition as a key of an object, which JSON writes as text."""
NEEDS_VALUE: JsonDict = {"required": ["value"], "properties": {"value": {"type": ["string", "number", "boolean"]}}}


class Metadata(BaseModel):
    self: str
    resource_name: str


class ListMetadata(BaseModel):
    self: str
    next: str | None


class Related(BaseModel):
    related: str


class Resource(BaseModel):
    kind: str
    metadata: Metadata
    cluster_id: str


class Listing(BaseModel, Generic[Item]):
    kind: str
    metadata: ListMetadata
    data: list[Item]


class Cluster(Resource):
    controller: Related | None
    acls: Related
    brokers: Related
    broker_configs: Related
    consumer_groups: Related
    topics: Related
    partition_reassignments: Related


class Broker(Resource):
    broker_id: int
    host: str | None
    port: int | None
    rack: str | None
    configs: Related
    partition_replicas: Related
    broker_epoch: Annotated[int, ADDITION]
    is_fenced: Annotated[bool, ADDITION]
    rest: Annotated[str, ADDITION] = Field(description="host:port of the REST listener; host and port are Kafka's.")


class Topic(Resource):
    topic_name: str
    is_internal: bool
    replication_factor: int
    partitions_count: int
    partitions: Related
    configs: Related
    partition_reassignments: Related
    authorized_operations: list[str]
    topic_id: Annotated[str | None, ADDITION]


class Partition(Resource):
    topic_name: str
    partition_id: int
    leader: Related | None
    replicas: Related
    reassignment: Related
    leader_id: Annotated[int, ADDITION]
    leader_epoch: Annotated[int, ADDITION]
    partition_epoch: Annotated[int, ADDITION]
    isr: Annotated[list[int], ADDITION]
    assignment: Annotated[list[int], ADDITION]
    leader_recovery: Annotated[str, ADDITION]


class Offset(Resource):
    topic_name: str
    partition_id: int
    earliest_offset: int
    latest_offset: int


class Replica(Resource):
    topic_name: str
    partition_id: int
    broker_id: int
    is_leader: bool
    is_in_sync: bool
    broker: Related


class Reassignment(Resource):
    topic_name: str
    partition_id: int
    adding_replicas: list[int]
    removing_replicas: list[int]
    replicas: Related


class ConfigSynonym(BaseModel):
    name: str
    value: str | None
    source: str


class Config(Resource):
    name: str
    value: str | None
    is_default: bool
    is_read_only: bool
    is_sensitive: bool
    source: str
    synonyms: list[ConfigSynonym]


class TopicConfig(Config):
    topic_name: str


class BrokerConfig(Config):
    broker_id: int


class ClusterConfig(Config):
    config_type: Literal["BROKER"]


class ConfigValue(RequestBody):
    name: str
    value: SettingText | None = None


class NewTopic(RequestBody):
    topic_name: TopicName
    partitions_count: int | None = Field(default=None, ge=1, le=INT32_MAX)
    replication_factor: int | None = Field(default=None, ge=1, le=32767)
    replicas_assignments: Entries[PartitionKey, Items[BrokerId]] | None = Field(
        default=None, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
    )
    configs: Items[ConfigValue] | None = None
    validate_only: bool = False


class PartitionsCount(RequestBody):
    partitions_count: int = Field(ge=1, le=INT32_MAX)
    validate_only: bool = False


class ConfigUpdate(RequestBody):
    model_config = ConfigDict(json_schema_extra=NEEDS_VALUE)

    value: SettingText | None = None


class ConfigChange(RequestBody):
    """Only DELETE needs no value."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [NEEDS_VALUE, {"required": ["operation"], "properties": {"operation": {"const": "DELETE"}}}]
        }
    )

    name: str
    value: SettingText | None = None
    operation: Literal["SET", "DELETE", "APPEND", "SUBTRACT"] | None = Field(default=None, description="null: SET.")


class ConfigChanges(RequestBody):
    data: Items[ConfigChange] = Field(min_length=1)
    validate_only: bool = False


class TopicConfigChanges(RequestBody):
    topic_name: TopicName
    configs: Items[ConfigChange] = Field(min_length=1)


class TopicsConfigChanges(RequestBody):
    data: Items[TopicConfigChanges] = Field(min_length=1)
    validate_only: bool = False


class TopicConfigFailure(BaseModel):
    topic_name: str
    error_code: int
    message: str


class TopicsConfigAnswer(BaseModel):
    """What was refused; the other topics' changes are made."""

    failures: list[TopicConfigFailure]


class PartitionTarget(RequestBody):
    topic_name: str
    partition_id: int = Field(ge=0, le=INT32_MAX)


class ElectionRequest(RequestBody):
    """Without `partitions`: every partition."""

    election_type: Literal["preferred", "unclean"] = "preferred"
    partitions: Items[PartitionTarget] | None = None


class PartitionElection(RequestBody):
    election_type: Literal["preferred", "unclean"] = "preferred"


class PartitionResult(BaseModel):
    topic_name: str
    partition_id: int
    error_code: int | None
    message: str | None
    kafka_code: int | None = None
    retriable: bool | None = None


class PartitionResults(BaseModel):
    kind: str
    data: list[PartitionResult]


class NewReassignment(RequestBody):
    replicas: Items[BrokerId] = Field(min_length=1)


class AclFields(BaseModel):
    """One ACL, with the names of Kafka's codes."""

    resource_type: str
    resource_name: str
    pattern_type: str
    principal: str
    host: str
    operation: str
    permission: str


class NewAcl(AclFields, RequestBody):
    """One ACL, with the names of Kafka's codes."""


class NewAcls(RequestBody):
    data: Items[NewAcl]


class AclDocument(AclFields, Resource):
    """One ACL, as it is listed."""


class DeletedAcls(BaseModel):
    data: list[AclDocument]


QUOTAS_MAX = 10
"""Quotas in one change; there are fewer kinds of them."""


class QuotaChange(RequestBody):
    """Quotas of one entity: of a user, a client-id, an ip, or a default of these (null)."""

    entity: Annotated[dict[str, str | None], Field(min_length=1, max_length=3)]
    quotas: Annotated[dict[str, float | None], Field(max_length=QUOTAS_MAX)]


class ClientQuota(BaseModel):
    entity: dict[str, str | None]
    quotas: dict[str, float]
