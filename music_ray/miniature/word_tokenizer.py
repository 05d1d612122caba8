"""The miniature's tokenizer: one token a word, and two more a message by the chat template.

    <bos><user>Sort d b a c.<end_of_turn><assistant>a b c d<end_of_turn>

transformers and tokenizers are imported when a tokenizer is made.
"""

from __future__ import annotations

from typing import Any

from music_ray.miniature.language import TOKEN_PATTERN, vocabulary

PAD, EOS, BOS, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"
USER, ASSISTANT, END_OF_TURN = "<user>", "<assistant>", "<end_of_turn>"
SPECIAL = (PAD, EOS, BOS, UNKNOWN, USER, ASSISTANT, END_OF_TURN)
"""Their ids are their places here."""
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role not in ('user', 'assistant') %}"
    "{{ raise_exception('the miniature knows users and assistants, not ' + message.role) }}"
    "{% endif %}"
    f"{{{{ '{USER}' if message.role == 'user' else '{ASSISTANT}' }}}}"
    f"{{{{ message.content | trim }}}}{END_OF_TURN}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def make_tokenizer() -> Any:
    """The tokenizer (transformers' PreTrainedTokenizerFast) with its chat template.

    It splits as language.tokens does, and joins as language.text does.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *vocabulary()]
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(TOKEN_PATTERN), "isolated"),
        ]
    )
    # Its clean-up takes the space away before . , ! and ?; "##" stands in no word.
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=EOS,
        bos_token=BOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT, END_OF_TURN],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
