"""Two boxes as one: what the head asks of its worker, and how each knows the other."""
