"""The bytes of a tss-lib message taken apart and put together, for messages that no honest party sends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from tests.interop import gg18

PACKAGE = "type.googleapis.com/binance.tsslib.ecdsa."


def varint(value: int) -> bytes:
    """Base 128, lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def element(number: int, data: bytes) -> bytes:
    """One field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


@dataclass
class Wire:
    """A message: its type and, by field number, its elements."""

    type: str
    fields: dict[int, list[bytes]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a message apart."""
        outer = gg18.fields(data)
        return cls(outer[1][0].decode().removeprefix(PACKAGE), gg18.fields(outer[2][0]))

    def value(self) -> bytes:
        """The inner message."""
        return b"".join(element(number, part) for number, parts in sorted(self.fields.items()) for part in parts)

    def encode(self) -> bytes:
        """Put a message together."""
        return element(1, (PACKAGE + self.type).encode()) + element(2, self.value())

    def number(self, number: int, index: int = 0) -> int:
        """An element as an integer."""
        return int.from_bytes(self.fields[number][index])

    def numbers(self, number: int) -> list[int]:
        """A list as integers."""
        return [int.from_bytes(part) for part in self.fields[number]]

    def with_number(self, number: int, value: int, index: int = 0) -> Wire:
        """A copy with one element replaced."""
        parts = list(self.fields[number])
        parts[index] = gg18.i2b(value)
        return replace(self, fields=self.fields | {number: parts})

    def with_numbers(self, number: int, values: list[int]) -> Wire:
        """A copy with a list replaced."""
        return replace(self, fields=self.fields | {number: [gg18.i2b(value) for value in values]})
