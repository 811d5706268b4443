"""Whether a registered model is what it claims to be: hashes, data, intervals of training, all."""
