"""Fixtures of the gateway tests: whole appliances over fake engines."""

from tests.appliances import run

__all__ = ["run"]
