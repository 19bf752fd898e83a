"""Values that nobody changes once they are made, where thousands are made a second.

Owns one decorator. A frozen dataclass asks `object.__setattr__` for every field that it sets, and takes four times as
long to make as a plain one: a third of what it costs to read a statement. Here the type checker refuses the change
instead, in our code and in everybody's that is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass of keyword-only fields, compared and hashed by them; to be treated as frozen."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
