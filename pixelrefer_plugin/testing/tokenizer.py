"""Byte-level BPE tokenizers of a few hundred entries, trained in memory, that stand in for a backbone's own.

They split text as Qwen2's tokenizer does, so any text round-trips, and the words of their corpus are one
token each. Special tokens and chat template are the caller's; those of ChatML with images and videos are here.
"""

from collections.abc import Iterable, Mapping, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# The pattern of Qwen2's tokenizer: single digits, words with their leading space, runs of punctuation.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Both forms of a word count, with and without the space before it: answers begin with a bare one.
TINY_CORPUS: tuple[str, ...] = (
    "system\nuser\nassistant\nYou are a helpful assistant.",
    "which digits are there?\nwhich colours are there?\nhow many digits are there?",
    "which digit is red, green, blue, yellow, pink, white?\nwhat colour is the digit?",
    "red\ngreen\nblue\nyellow\npink\nwhite",
    "which digit is [? which digit is in the region? what is [? describe [. what colour is [?",
    "is the digit left of, right of, above or below the region? where does it move?",
    "left\nright\nup\ndown\nabove\nbelow\nyes\nno\ndigit\nregion\nimage\nvideo\nTime s:, Time s:",
)


CHATML_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# ChatML with image and video parts; no system turn is made up where there is none.
CHATML_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part['type'] == 'video' %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- else %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def tiny_tokenizer(
    corpus: Iterable[str],
    special_tokens: Sequence[str],
    chat_template: str,
    *,
    eos_token: str = "<|im_end|>",
    pad_token: str = "<|endoftext|>",
    bos_token: str | None = None,
    vocab_size: int = 4096,
    named_tokens: Mapping[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer in which every word of a small corpus is one token.

    Args:
        corpus: Texts whose words, with the space before them, become tokens.
        special_tokens: Never split; they take the ids that follow the learnt entries, in this order.
        chat_template: Jinja template for `apply_chat_template`.
        eos_token: One of `special_tokens`; ends an answer.
        pad_token: One of `special_tokens`.
        bos_token: One of `special_tokens`, with which the tokenizer begins every text; None: it has none.
        vocab_size: Upper bound on learnt entries; a small corpus ends well below it.
        named_tokens: Names by which a processor asks for some of `special_tokens`: with `{"image_token": "<image>"}`
            there are `tokenizer.image_token` and `image_token_id`, also after saving and loading.

    Raises:
        ValueError: `eos_token`, `pad_token`, `bos_token` or a named token is not among `special_tokens`.
    """
    named = dict(named_tokens or {})
    asked = {eos_token, pad_token, *named.values()} | ({bos_token} if bos_token is not None else set())
    if missing := asked - set(special_tokens):
        raise ValueError(f"tiny_tokenizer: {sorted(missing)} must be among special_tokens {list(special_tokens)}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(list(special_tokens))
    if bos_token is not None:
        begun = [(bos_token, tokenizer.token_to_id(bos_token))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos_token} $A", special_tokens=begun)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos_token,
        pad_token=pad_token,
        bos_token=bos_token,
        additional_special_tokens=[t for t in special_tokens if t not in (eos_token, pad_token, bos_token)],
        model_specific_special_tokens=named,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template
    return fast
