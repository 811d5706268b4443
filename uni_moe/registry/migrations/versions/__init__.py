"""The revisions, in the order of their numbers. One that was published changes no more."""
