"""How the index came to the form of today, revision by revision; `migrating` runs them.

A new one is a file `versions/rNNNN_what_changes.py` with the next number.
"""
