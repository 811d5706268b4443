"""The index over cards and run folders, the gate, and questions about lineage."""
