"""From raw samples to examples: sources, media, manifest, contract, corpus, order."""
