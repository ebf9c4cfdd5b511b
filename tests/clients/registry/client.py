"""Avro records by a registry, with confluent-kafka's serializers: client.py BOOTSTRAP TOPIC URL write|evolve|read

write: 100 records of the schema's first version. evolve: 100 of the second, and a third one that is refused. read: all.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

COUNT = 100
WAIT_S = 30
CONFLICT = 409


def schema(**added: Any) -> str:
    fields = [{"name": "number", "type": "int"}, {"name": "name", "type": "string"}]
    fields += [{"name": name, **rest} for name, rest in added.items()]
    return json.dumps({"type": "record", "name": "Order", "namespace": "clients", "fields": fields})


FIRST = schema()
SECOND = schema(city={"type": "string", "default": "nowhere"})
THIRD = schema(price={"type": "double"})
"""Without a default: a reader of it could not read what was written before."""


def main() -> None:
    bootstrap, topic, url, verb = sys.argv[1:]
    registry = SchemaRegistryClient({"url": url})
    if verb == "write":
        write(bootstrap, topic, registry, FIRST, range(COUNT))
    elif verb == "evolve":
        write(bootstrap, topic, registry, SECOND, range(COUNT, 2 * COUNT))
        assert status_of_registering(registry, topic, THIRD) == CONFLICT
        assert registry.get_versions(f"{topic}-value") == [1, 2]
    else:
        found = read(bootstrap, topic, registry)
        wanted = [record(number) for number in range(COUNT)]
        wanted = [{**each, "city": "nowhere"} for each in wanted] + [record(n, "Köln") for n in range(COUNT, 2 * COUNT)]
        assert sorted(found, key=lambda each: each["number"]) == wanted, found
    print("ok", verb)


def status_of_registering(registry: SchemaRegistryClient, topic: str, text: str) -> int:
    try:
        registry.register_schema(f"{topic}-value", Schema(text, "AVRO"))
    except SchemaRegistryError as refused:
        return int(refused.http_status_code)
    return 200


def record(number: int, city: str | None = None) -> dict[str, Any]:
    return {"number": number, "name": f"order {number} äöü", **({} if city is None else {"city": city})}


def write(bootstrap: str, topic: str, registry: SchemaRegistryClient, text: str, numbers: range) -> None:
    serializer = AvroSerializer(registry, text)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number in numbers:
        value = serializer(
            record(number, "Köln" if text == SECOND else None), SerializationContext(topic, MessageField.VALUE)
        )
        producer.produce(topic, value)
    assert producer.flush(WAIT_S) == 0


def read(bootstrap: str, topic: str, registry: SchemaRegistryClient) -> list[Any]:
    """As the second version."""
    deserializer = AvroDeserializer(registry, SECOND)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[Any] = []
    while len(found) < 2 * COUNT:
        message = consumer.poll(WAIT_S)
        assert message is not None, len(found)
        assert message.error() is None, message.error()
        found.append(deserializer(message.value(), SerializationContext(topic, MessageField.VALUE)))
    consumer.close()
    return found


if __name__ == "__main__":
    main()
