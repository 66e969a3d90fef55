"""Fixtures of the component tests: whole appliances over fake engines."""

from tests.appliances import box, run, shared_box, start

__all__ = ["box", "run", "shared_box", "start"]
