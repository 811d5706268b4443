"""The Uni-MoE network: pure tensors, no files but Hugging Face's own, no databases."""
