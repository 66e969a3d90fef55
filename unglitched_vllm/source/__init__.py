"""From vLLM's own release to ours: fetch, verify, patch, and build or repack a wheel.

Standard library alone, so that it runs in a bare build stage. Started by ../build.sh.
"""
