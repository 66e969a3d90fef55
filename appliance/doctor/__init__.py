"""``appliance doctor``: looks at the host, and says what would keep the appliance from serving.

What is seen is kept apart from what is thought of it: the ``…look`` modules touch the world, each
with a deadline, and return frozen facts; the ``…rows`` modules turn facts into rows, and are pure.
"""
