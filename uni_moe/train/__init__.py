"""Training: the foundation, the three phases, and the one loop that serves them."""
