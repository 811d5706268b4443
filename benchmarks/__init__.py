"""How fast ours is beside its peers: one command per question, on this machine."""
