"""Settings of the unit tests."""

from hypothesis import HealthCheck, settings

# Time never decides a test: a loaded machine is no counterexample.
settings.register_profile("laws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laws")
