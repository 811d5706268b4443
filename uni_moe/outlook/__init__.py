"""What a run would do, before anything of it runs: samples, learning, memory, time, disk."""
