"""Fixtures of the component tests: whole appliances over fake engines."""

from tests.appliance_tasks import start
from tests.appliances import box, run, shared_box

__all__ = ["box", "run", "shared_box", "start"]
