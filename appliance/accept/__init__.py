"""``appliance accept``: the acceptance run of a box, and the one report that comes of it.

What is done and what it is worth (``steps``, ``judge``, ``figures``) is pure, and so is the report
(``report``, ``anonymous``, ``charts``, ``page``). ``box``, ``load``, ``actions``, ``journal`` and
``run`` touch the world.
"""
