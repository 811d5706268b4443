"""The frozen encoders: CLIP and Whisper from transformers, BEATs from the paper."""
