"""The playground: pictures, films, sounds, speech and text made by our own code, from a seed.

A sample is a function of the seed and its own name, so another count changes no other sample.
"""

from uni_moe.data.sources.playground.source import Playground, open_playground

__all__ = ["Playground", "open_playground"]
