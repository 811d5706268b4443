"""Import this to let the auto classes of transformers load Uni-MoE folders.

AutoConfig, AutoProcessor, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText and
AutoModelForMultimodalLM know them from then on. Every auto model is the one network, head included.
"""

from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor

__all__ = ["UniMoeConfig", "UniMoeForConditionalGeneration", "UniMoeProcessor"]
