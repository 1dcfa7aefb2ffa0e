"""The protobuf messages of Sparkplug B (Eclipse Sparkplug 3.0.0, section 6.4), built at run time.

Field names, numbers and types are those of the specification; what the gateway never reads
(templates, data sets, metadata) is left out, and protobuf skips it. No generated module: the
descriptor below is the whole definition, and needs no compiler to keep in step with a library.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "aegisops.sparkplug"
_KIND = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "uint32": _KIND.TYPE_UINT32,
    "uint64": _KIND.TYPE_UINT64,
    "float": _KIND.TYPE_FLOAT,
    "double": _KIND.TYPE_DOUBLE,
    "bool": _KIND.TYPE_BOOL,
    "string": _KIND.TYPE_STRING,
    "bytes": _KIND.TYPE_BYTES,
}
_VALUE = "value"
"""Fields marked `=value` are the alternatives of a oneof."""

_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "PropertyValue": (
        (1, "type", "uint32"),
        (2, "is_null", "bool"),
        (3, "int_value=value", "uint32"),
        (4, "long_value=value", "uint64"),
        (5, "float_value=value", "float"),
        (6, "double_value=value", "double"),
        (7, "boolean_value=value", "bool"),
        (8, "string_value=value", "string"),
    ),
    "PropertySet": (
        (1, "keys*", "string"),
        (2, "values*", "PropertyValue"),
    ),
    "Metric": (
        (1, "name", "string"),
        (2, "alias", "uint64"),
        (3, "timestamp", "uint64"),
        (4, "datatype", "uint32"),
        (5, "is_historical", "bool"),
        (6, "is_transient", "bool"),
        (7, "is_null", "bool"),
        (9, "properties", "PropertySet"),
        (10, "int_value=value", "uint32"),
        (11, "long_value=value", "uint64"),
        (12, "float_value=value", "float"),
        (13, "double_value=value", "double"),
        (14, "boolean_value=value", "bool"),
        (15, "string_value=value", "string"),
        (16, "bytes_value=value", "bytes"),
    ),
    "Payload": (
        (1, "timestamp", "uint64"),
        (2, "metrics*", "Metric"),
        (3, "seq", "uint64"),
        (4, "uuid", "string"),
        (5, "body", "bytes"),
    ),
}


class DataType(IntEnum):
    """Sparkplug's data types that become readings or events (section 6.4.16)."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31


@cache
def payload_class() -> Any:  # noqa: ANN401 - protobuf makes the class at run time
    """The class of Sparkplug B payloads: `payload_class()()`, `payload_class().FromString(raw)`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="aegisops/sparkplug_b.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, declared in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if any(field.endswith(f"={_VALUE}") for _, field, _ in declared):
            message.oneof_decl.add(name=_VALUE)
        for number, written, kind in declared:
            field = message.field.add(number=number, name=written.rstrip("*").partition("=")[0])
            field.label = _KIND.LABEL_REPEATED if written.endswith("*") else _KIND.LABEL_OPTIONAL
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type, field.type_name = _KIND.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            if written.endswith(f"={_VALUE}"):
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))
