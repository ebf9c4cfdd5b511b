"""Every fact is read back from its bytes as it was, whichever of its fields are None."""

from __future__ import annotations

import typing

import pytest
from pydantic.fields import FieldInfo

from metadata.records import ConfigRecord, Record, decode_records, encode_records

FACTS = typing.get_args(typing.get_args(Record)[0])


def test_a_setting_that_is_removed_is_still_removed_after_a_restart() -> None:
    removal = ConfigRecord(resource_type="topic", resource_name="t", name="retention.ms", value=None)
    assert list(decode_records(encode_records([removal]))) == [removal]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_a_field_that_may_be_none_need_not_be_written(fact: type) -> None:
    """None is left out of the bytes: such a field must be None again when it is missing."""
    fields: dict[str, FieldInfo] = fact.model_fields  # type: ignore[attr-defined]
    for name, field in fields.items():
        if type(None) in typing.get_args(field.annotation):
            assert not field.is_required(), f"{fact.__name__}.{name} has no default"
            assert field.default is None, f"{fact.__name__}.{name} comes back as {field.default!r}"
