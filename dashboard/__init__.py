"""The place of the dashboard, which only reads: registry.read, records and artifacts."""
