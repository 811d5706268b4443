"""What may go and what must stay: retention, reachability, disk use. Planned here, then done."""
