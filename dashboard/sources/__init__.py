"""The dashboard's only door to a workspace: answers of the registry, of cards and run folders."""
