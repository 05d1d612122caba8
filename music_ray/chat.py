"""The only place where messages become token ids.

One rendering, the model's own chat template, serves generation, training and scoring, so that a
beginning-of-sequence token stands once and a conversation ends in the same tokens everywhere. The
pooled token of a reward model is the last token of `conversation_ids`.

This module does not know engines, reward models or files; transformers is imported when a format is
loaded, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from music_ray.errors import InputError
from music_ray.models import reason_of
from music_ray.schema import Message

_SENTINEL = "\u241fMUSIC\u241f"


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer with its chat template, and what follows from them."""

    tokenizer: Any
    name: str

    @classmethod
    def load(cls, model: str, revision: str | None = None, *, appends: bool = True) -> ChatFormat:
        """The chat format of a model folder or hub id.

        Args:
            appends: see `of`.

        Raises:
            InputError: no tokenizer there, or as `of`.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot load a tokenizer from {model}: {reason_of(error)}\n"
                "name a Hugging Face model folder, or a hub id that this machine can reach (gated models "
                "need HF_TOKEN in the environment)"
            ) from None
        return cls.of(tokenizer, model, appends=appends)

    @classmethod
    def of(cls, tokenizer: Any, name: str = "tokenizer", *, appends: bool = True) -> ChatFormat:
        """The chat format of a loaded tokenizer.

        Args:
            appends: whether conversations are going to be continued, which asks for a template that only
                appends turns; without it, they are read as they are.

        Raises:
            InputError: no chat template, one that fails or leaves messages out, or, with `appends`, one that
                rewrites earlier turns.
        """
        if not tokenizer.chat_template:
            raise InputError(
                f"{name} has no chat template: use an instruction-tuned model, or add chat_template.jinja "
                "to its folder"
            )
        chat = cls(tokenizer, name)
        if appends:
            _ = chat.user_header  # found now: a template that rewrites is refused before anything is loaded
        else:
            chat._check_shows_messages()
        return chat

    # -- rendering ---------------------------------------------------------------------------------

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Messages as the template's text."""
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )

    def _encode(self, text: str) -> list[int]:
        # The template writes the beginning-of-sequence token itself where the model has one.
        return self.tokenizer.encode(text, add_special_tokens=False)

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a whole conversation, as the reward model sees it; the last one is pooled."""
        return self._encode(self.render(messages))

    def reply_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids after which the assistant's reply to the last user message comes."""
        return self._encode(self.render(messages, add_generation_prompt=True))

    def user_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids after which the next user message comes: the bare template after the user header.

        Args:
            messages: a conversation that ends on a reply, or an empty one (then the template's own
                opening stands before the header).
        """
        if messages:
            return self._encode(self.render(messages) + self.user_header)
        opening = self.render([{"role": "user", "content": _SENTINEL}])
        return self._encode(opening[: opening.index(_SENTINEL)])

    def num_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Length in tokens of the prompt for the next reply."""
        return len(self.reply_prompt_ids(messages))

    # -- special tokens ----------------------------------------------------------------------------

    @property
    def end_of_turn_ids(self) -> list[int]:
        """Tokens that end a message: the first one the template writes after a reply, and eos."""
        text = self.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": _SENTINEL}])
        after = self._encode(text[text.index(_SENTINEL) + len(_SENTINEL) :])
        found = [token for token in after[:1] if token in self._special_ids]
        if self.tokenizer.eos_token_id is not None:
            found.append(self.tokenizer.eos_token_id)
        return sorted(set(found))

    @property
    def _special_ids(self) -> set[int]:
        """Tokens that text can't contain: the named ones (bos, eos, …) and those marked as special."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {*self.tokenizer.all_special_ids, *(number for number, token in added if token.special)}

    @property
    def pad_token_id(self) -> int:
        """A padding token that never ends a conversation.

        Hugging Face pools the last token that is not padding, vLLM the last token: they agree only if
        no conversation ends in the padding token (SmolLM2 has pad = eos, for instance).

        Raises:
            InputError: the tokenizer has no special token to spare.
        """
        conversation = self.conversation_ids(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        )
        taken = {conversation[-1], *self.end_of_turn_ids}
        tokenizer = self.tokenizer
        candidates = [tokenizer.pad_token_id, tokenizer.unk_token_id, *sorted(self._special_ids)]
        for candidate in candidates:
            if candidate is not None and candidate not in taken:
                return candidate
        raise InputError(f"{self.name} has no special token that could serve as padding: add a pad token")

    # -- what the template does --------------------------------------------------------------------

    @cached_property
    def user_header(self) -> str:
        """What the template puts between a reply and the next user message, e.g. '<|im_start|>user\\n'.

        Raises:
            InputError: rendering more turns changes the text of earlier ones, or fails.
        """
        start: list[Message] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
        ]
        before = self._render_plain(start)
        longer = self._render_plain([*start, {"role": "user", "content": _SENTINEL}])
        if not longer.startswith(before) or _SENTINEL not in longer:
            raise InputError(
                f"the chat template of {self.name} rewrites earlier turns when a turn is added: prefixes "
                "could not be shared; use a template that only appends"
            )
        return longer[len(before) : longer.index(_SENTINEL)]

    def _check_shows_messages(self) -> None:
        """All that reading a conversation asks of a template.

        Raises:
            InputError: it fails on a plain conversation, or leaves out the message or the reply.
        """
        marks = {role: f"\u241f{role}\u241f" for role in ("user", "assistant")}
        text = self._render_plain([{"role": role, "content": mark} for role, mark in marks.items()])
        for role, mark in marks.items():
            if mark not in text:
                raise InputError(
                    f"the chat template of {self.name} leaves out what the {role} says: use one that shows "
                    "every message"
                )

    def _render_plain(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        try:
            return self.render(messages)
        except TemplateError as error:
            raise InputError(
                f"the chat template of {self.name} fails on a plain conversation ({error}): use an "
                "instruction-tuned model"
            ) from None


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with a leading system message folded into the first user message.

    Gemma-2's template refuses the system role, so nothing inside the run folder has one.
    """
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, *rest = messages
    if not rest or rest[0]["role"] != "user":
        return list(messages)
    first: Message = {"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}
    return [first, *rest[1:]]
