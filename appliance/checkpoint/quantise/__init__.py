"""Matrices of 8 and 4 bits. The one part of the checkpoint tools that needs numpy."""
