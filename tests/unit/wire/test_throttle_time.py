"""The wait in an answer that is written already, which others may get, too."""

from __future__ import annotations

import pytest

from kraft.protocol import apis, codec
from kraft.protocol.encoding import TopLevel, Written, WrittenOnce
from kraft.protocol.messages.create_topics_response import CreatableTopicResult, CreateTopicsResponseData
from kraft.protocol.messages.metadata_response import MetadataResponseBroker, MetadataResponseData
from kraft.wire.throttle_time import FIELD, wait_of, with_wait

METADATA = MetadataResponseData.make(
    brokers=[MetadataResponseBroker.make(node_id=1, host="h", port=2)], controller_id=1
)
CREATED = CreateTopicsResponseData.make(topics=[CreatableTopicResult.make(name="t", configs=())])


@pytest.mark.parametrize(("response", "first"), [(METADATA, 3), (CREATED, 2)], ids=["Metadata", "CreateTopics"])
@pytest.mark.parametrize("written", [Written, WrittenOnce])
def test_a_wait_is_put_into_what_is_written(response: TopLevel, first: int, written: type[Written]) -> None:
    kind = type(response)
    for version in apis.BY_KEY[kind.API_KEY].clients:
        body = b"".join(codec.encode_body(response, version))
        shared = written.make([body[:9], body[9:]])
        found = with_wait(kind, version, shared, 5_000)
        assert isinstance(found, Written)
        answer = codec.decode_body(kind, version, memoryview(b"".join(found.parts)), 0)
        expected = 5_000 if version >= first else 0
        assert getattr(answer, FIELD) == wait_of(kind, version, found) == expected
        assert b"".join(codec.encode_body(with_wait(kind, version, answer, 0), version)) == body
        assert b"".join(shared.parts) == body


def test_an_answer_without_the_field_stays_as_it_is() -> None:
    kind = apis.response_type(apis.BY_NAME["DescribeQuorum"])
    assert with_wait(kind, 0, Written.make([b"body"]), 5).parts == [b"body"]
    assert with_wait(kind, 0, None, 5) is None
    assert wait_of(kind, 0, None) == 0
