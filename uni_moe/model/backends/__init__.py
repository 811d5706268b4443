"""Ways to run packed experts: one interface, one result up to rounding."""
