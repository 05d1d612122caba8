"""Messages become token ids in one place, with real tokenizers made here: ChatML, Gemma-2, Llama-3."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from music_ray.chat import ChatFormat, fold_system
from music_ray.errors import InputError
from music_ray.models import DEMO_MODEL, demo_model_dir, is_ready
from music_ray.schema import Message

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA = (
    "{% for m in messages %}{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def byte_tokenizer(template: str | None, marks: list[str], **special: str):
    """A real tokenizers-library tokenizer: every byte is a token, and each mark is one special token.

    Like Llama's and Gemma's it adds a beginning-of-sequence token of its own, unless told not to.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    if bos := special.get("bos_token"):
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    tokenizer.chat_template = template
    return tokenizer


def chatml() -> ChatFormat:
    # As SmolLM2 has it: the padding token is the one that ends every message.
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    names = {"unk_token": marks[0], "bos_token": marks[1], "eos_token": marks[2], "pad_token": marks[2]}
    return ChatFormat.of(byte_tokenizer(CHATML, marks, **names), "chatml")


def gemma() -> ChatFormat:
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return ChatFormat.of(byte_tokenizer(GEMMA, marks, **names), "gemma")


def llama() -> ChatFormat:
    # No padding token, no unknown token; what ends a turn has no name of its own.
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    names = {"bos_token": marks[0], "eos_token": marks[1]}
    return ChatFormat.of(byte_tokenizer(LLAMA, marks, **names), "llama")


FORMATS: dict[str, Callable[[], ChatFormat]] = {"chatml": chatml, "gemma": gemma, "llama": llama}


@pytest.fixture(scope="module", params=[*FORMATS, "smollm2"])
def chat(request: pytest.FixtureRequest) -> ChatFormat:
    if request.param != "smollm2":
        return FORMATS[request.param]()
    if not is_ready(DEMO_MODEL):
        pytest.skip(f"no converted demo model in {demo_model_dir()}")
    return ChatFormat.load(str(demo_model_dir()))


def conversation(*texts: str) -> list[Message]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def ids_of(chat: ChatFormat, *marks: str) -> list[int]:
    return [chat.tokenizer.convert_tokens_to_ids(mark) for mark in marks]


# -- what is learnt from the template --------------------------------------------------------------


def test_headers_ends_and_padding() -> None:
    one = chatml()
    assert one.user_header == "<|im_start|>user\n"
    assert one.end_of_turn_ids == ids_of(one, "<|im_end|>")
    assert one.pad_token_id == ids_of(one, "<|endoftext|>")[0]
    two = gemma()
    assert two.user_header == "<start_of_turn>user\n"
    assert two.end_of_turn_ids == sorted(ids_of(two, "<eos>", "<end_of_turn>"))
    assert two.pad_token_id == ids_of(two, "<pad>")[0]
    three = llama()
    assert three.user_header == "<|start_header_id|>user<|end_header_id|>\n\n"
    assert three.end_of_turn_ids == sorted(ids_of(three, "<|end_of_text|>", "<|eot_id|>"))
    assert three.pad_token_id == ids_of(three, "<|begin_of_text|>")[0]


def test_the_beginning_of_sequence_stands_once() -> None:
    messages = conversation("Hi", "Hello", "Bye", "So long")
    for one in (gemma(), llama()):
        bos = one.tokenizer.bos_token_id
        # The tokenizer by itself would put a second one before the template's.
        assert one.tokenizer.encode(one.render(messages))[:2] == [bos, bos]
        for ids in (
            one.conversation_ids(messages),
            one.reply_prompt_ids(messages[:3]),
            one.user_prompt_ids(messages[:2]),
            one.user_prompt_ids([]),
        ):
            assert ids[0] == bos and ids.count(bos) == 1


def test_exact_text_of_every_prompt() -> None:
    one, messages = gemma(), conversation(" Hi ", "Hello")
    decode = one.tokenizer.decode
    assert decode(one.conversation_ids(messages)) == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    )
    assert decode(one.reply_prompt_ids(messages[:1])) == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    )
    assert decode(one.user_prompt_ids(messages)) == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\n"
    )
    assert decode(one.user_prompt_ids([])) == "<bos><start_of_turn>user\n"
    assert one.num_prompt_tokens(messages[:1]) == len(one.reply_prompt_ids(messages[:1]))


def test_gemma_refuses_what_the_run_folder_never_holds() -> None:
    one = gemma()
    with pytest.raises(TemplateError, match="System role not supported"):
        one.render([{"role": "system", "content": "x"}, *conversation("Hi")])
    with pytest.raises(TemplateError, match="roles must alternate"):
        one.render([*conversation("Hi"), *conversation("Hi")])


# -- properties of every format --------------------------------------------------------------------

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=7)


@given(texts=TEXTS)
@settings(max_examples=60, deadline=None)
def test_longer_histories_begin_with_shorter_ones(chat: ChatFormat, texts: list[str]) -> None:
    messages = conversation(*texts)
    whole = chat.conversation_ids(messages)
    for k in range(1, len(messages)):
        head = messages[:k]
        assert whole[: len(chat.conversation_ids(head))] == chat.conversation_ids(head)
        if messages[k]["role"] == "assistant":
            prompt = chat.reply_prompt_ids(head)
        else:
            prompt = chat.user_prompt_ids(head)
        # What is written next continues this very prompt, whatever it says; white space at its edges
        # may be trimmed, or join the header's last line break in one token, as in SmolLM2.
        if messages[k]["content"][:1].strip():
            assert whole[: len(prompt)] == prompt


@given(texts=TEXTS)
@settings(max_examples=40, deadline=None)
def test_a_conversation_ends_the_same_whatever_it_says(chat: ChatFormat, texts: list[str]) -> None:
    pooled = {chat.conversation_ids(conversation(*texts[:k], "x"))[-1] for k in (1, 3) if len(texts) >= k}
    usual = chat.conversation_ids(conversation("a", "b"))[-1]
    assert pooled == {usual}
    assert chat.pad_token_id != usual
    assert chat.pad_token_id not in chat.end_of_turn_ids


def test_both_sides_of_a_pair_share_the_prompt(chat: ChatFormat) -> None:
    chosen = chat.conversation_ids(conversation("Sort 3 1 2", "1 2 3"))
    rejected = chat.conversation_ids(conversation("Sort 3 1 2", "3 2 1"))
    shared = len(chat.reply_prompt_ids(conversation("Sort 3 1 2")))
    assert chosen[:shared] == rejected[:shared] and chosen != rejected


# -- templates that cannot serve -------------------------------------------------------------------


def test_no_template() -> None:
    with pytest.raises(InputError) as caught:
        ChatFormat.of(byte_tokenizer(None, []), "some/base-model")
    assert str(caught.value) == (
        "some/base-model has no chat template: use an instruction-tuned model, or add chat_template.jinja to "
        "its folder"
    )


@pytest.mark.parametrize(
    "template",
    [
        # Only the last reply keeps its text, as reasoning models drop earlier thoughts.
        "{% for m in messages %}[{{ m['role'] }}]{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}"
        "{% endif %}{% endfor %}",
        # The number of messages stands in front.
        "{{ messages | length }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}",
        # User messages do not appear at all.
        "{% for m in messages if m['role'] == 'assistant' %}{{ m['content'] }}{% endfor %}",
    ],
)
def test_a_template_that_rewrites_earlier_turns(template: str) -> None:
    with pytest.raises(InputError) as caught:
        ChatFormat.of(byte_tokenizer(template, []), "m")
    assert str(caught.value) == (
        "the chat template of m rewrites earlier turns when a turn is added: prefixes could not be shared; "
        "use a template that only appends"
    )


def test_a_template_that_rewrites_earlier_turns_can_be_read_and_not_continued() -> None:
    # As Qwen3's: an earlier reply loses its reasoning, and the last one has some, if empty.
    template = (
        "{% for m in messages %}<s>{{ m['role'] }}:{% if m['role'] == 'user' %}{{ m['content'] }}"
        "{% elif loop.last %}<think></think>{{ m['content'] }}"
        "{% else %}{{ m['content'].split('</think>')[-1] }}{% endif %}<e>{% endfor %}"
    )
    chat = ChatFormat.of(byte_tokenizer(template, ["<s>", "<e>"], eos_token="<e>"), "m", appends=False)
    messages = conversation("Hi", "<think>Hm</think>Hello", "Bye", "So long")
    text = "<s>user:Hi<e><s>assistant:Hello<e><s>user:Bye<e><s>assistant:<think></think>So long<e>"
    assert chat.tokenizer.decode(chat.conversation_ids(messages)) == text
    assert chat.conversation_ids(messages)[-1:] == chat.end_of_turn_ids == ids_of(chat, "<e>")
    assert chat.pad_token_id == ids_of(chat, "<s>")[0]
    with pytest.raises(InputError, match="rewrites earlier turns when a turn is added"):
        chat.user_prompt_ids(messages)


def test_a_template_that_appends_is_read_as_it_is_continued() -> None:
    one = gemma()
    other = ChatFormat.of(one.tokenizer, "gemma", appends=False)
    messages = conversation("Hi", "Hello", "Bye", "So long")
    assert other.conversation_ids(messages) == one.conversation_ids(messages)
    assert other.user_prompt_ids(messages) == one.user_prompt_ids(messages)


@pytest.mark.parametrize("left_out", ["user", "assistant"])
def test_a_template_that_leaves_messages_out_can_not_be_read(left_out: str) -> None:
    template = f"{{% for m in messages if m['role'] != '{left_out}' %}}{{{{ m['content'] }}}}{{% endfor %}}"
    with pytest.raises(InputError) as caught:
        ChatFormat.of(byte_tokenizer(template, []), "m", appends=False)
    assert str(caught.value) == (
        f"the chat template of m leaves out what the {left_out} says: use one that shows every message"
    )


@pytest.mark.parametrize("appends", [True, False])
def test_a_template_that_fails(appends: bool) -> None:
    with pytest.raises(InputError) as caught:
        ChatFormat.of(byte_tokenizer("{{ raise_exception('no chat here') }}", []), "m", appends=appends)
    assert str(caught.value) == (
        "the chat template of m fails on a plain conversation (no chat here): use an instruction-tuned model"
    )


def test_no_token_left_for_padding() -> None:
    template = "{% for m in messages %}{{ m['role'] + m['content'] }}<e>{% endfor %}"
    chat = ChatFormat.of(byte_tokenizer(template, ["<e>"], eos_token="<e>"), "m")
    with pytest.raises(InputError) as caught:
        _ = chat.pad_token_id
    assert str(caught.value) == "m has no special token that could serve as padding: add a pad token"


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        ChatFormat.load(str(tmp_path))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"cannot load a tokenizer from {tmp_path}: ")
    assert lines[1:] == [
        "name a Hugging Face model folder, or a hub id that this machine can reach (gated models need "
        "HF_TOKEN in the environment)"
    ]


def test_a_saved_format_loads_again(tmp_path: Path) -> None:
    one = gemma()
    one.tokenizer.save_pretrained(tmp_path)
    again = ChatFormat.load(str(tmp_path))
    messages = conversation("Hi", "Hello")
    assert again.conversation_ids(messages) == one.conversation_ids(messages)
    assert (again.user_header, again.pad_token_id) == (one.user_header, one.pad_token_id)


# -- system messages -------------------------------------------------------------------------------


def test_a_leading_system_message_is_folded() -> None:
    system: Message = {"role": "system", "content": "Be brief."}
    assert fold_system([system, *conversation("Hi", "Hello")]) == conversation("Be brief.\n\nHi", "Hello")
    assert fold_system(conversation("Hi", "Hello")) == conversation("Hi", "Hello")
    assert fold_system([]) == []
    # Nothing to fold it into: left for the reader of D to set aside.
    assert fold_system([system]) == [system]
    wrong: list[Message] = [system, {"role": "assistant", "content": "Hello"}]
    assert fold_system(wrong) == wrong
