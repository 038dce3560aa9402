"""A tokenizer of ``transformers`` in place of those that the hub has."""

import tokenizers
import transformers

WORDS = "a photo of the cat dog dogs two small drawing . ,".split()


def small_tokenizer(end=2):
    """A tokenizer of ``transformers`` of a few words, whose end-of-text is the id ``end``, 1 or 2."""
    marks = ["<pad>", "</s>", "<unk>"] if end == 1 else ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
    )
