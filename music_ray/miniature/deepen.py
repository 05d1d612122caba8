"""The language model with more layers on top: what the miniature's reward models begin as.

In four layers a reward model can check a reply, or gather what it knows of earlier replies, but hardly one
after the other: the last token sees what earlier tokens have found out a layer below it, and a check takes
most of the layers (docs/explanation/miniature.md has the figures). Models of real size have layers to spare.
Importing this module loads nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

GAIN = 0.1
"""What the new layers' outputs are multiplied by at first: the model says nearly what it said before."""


def deepen(model: str, out: Path, num_layers: int, *, seed: int = 0) -> None:
    """Writes a Gemma-2 model with new layers on top, weights and tokenizer.

    Args:
        model: folder of a Gemma-2 language model.
        out: folder that is made; it is there whole or not at all.
        num_layers: layers that are added, in transformers' first weights for the seed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    before = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    first = config.num_hidden_layers
    config.num_hidden_layers = first + num_layers
    # Gemma-2's own order; the miniature's windows are as long as its longest conversation.
    kinds = ("sliding_attention", "full_attention")
    config.layer_types = [kinds[index % 2] for index in range(first + num_layers)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        deeper = AutoModelForCausalLM.from_config(config)
    deeper.load_state_dict(before.state_dict(), strict=False)
    for layer in deeper.model.layers[first:]:
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            torch.nn.init.constant_(norm.weight, GAIN - 1.0)  # Gemma's norms multiply by 1 + weight
    partial = out.with_name(f".partial-{out.name}")
    deeper.save_pretrained(partial)
    AutoTokenizer.from_pretrained(model, trust_remote_code=False).save_pretrained(partial)
    partial.rename(out)
