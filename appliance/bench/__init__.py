"""``appliance bench paths``: how often a model writes a path other than the one that it was shown.

What is asked (``cases``), what an answer is worth (``score``) and what all answers come to
(``report``, ``table``, ``chart``) is pure. ``endpoint``, ``journal`` and ``run`` touch the world.
"""
