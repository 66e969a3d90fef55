"""A small byte-level BPE tokenizer in the format of MiniMax-M2's.

Same special tokens in the same places: where the published vocabulary has its specials at
200000 + n, this one has them at ``base`` + n. Any text makes the round trip, as every byte is a
token.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

SPECIAL_SLOTS = 64
ROLE, END, UNKNOWN, BEGIN = "]~b]", "[e~[", "]!d~[", "]~!b["
# Place after the base vocabulary, as in the published one (200019 is slot 19).
SPECIAL = {19: ROLE, 20: END, 21: UNKNOWN, 34: BEGIN}
# Not special to the tokenizer: skip_special_tokens must leave these in the text, where the
# reasoning and the tool parser look for them.
MARKUP = {50: "<think>", 51: "</think>", 52: "<minimax:tool_call>", 53: "</minimax:tool_call>"}

# Words with their space in front, numbers of up to three digits, marks, blanks.
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges from ``texts`` and put the special tokens behind them.

    Args:
        texts: what the merges are learned from; a text given twice counts twice.
        vocab_size: ids in all, ``SPECIAL_SLOTS`` of them for special tokens.

    Raises:
        ValueError: the texts do not hold enough different words to fill the vocabulary.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    base = vocab_size - SPECIAL_SLOTS
    trainer = BpeTrainer(
        vocab_size=base,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != base:
        raise ValueError(
            f"vocabulary has {tokenizer.get_vocab_size()} of {base} ids: too few texts"
        )
    tokenizer.add_tokens([added_token(slot) for slot in range(SPECIAL_SLOTS)])
    return tokenizer


def added_token(slot: int) -> AddedToken:
    """Return the added token of a slot; the unnamed slots are reserved."""
    content = SPECIAL.get(slot) or MARKUP.get(slot) or f"<reserved_{slot}>"
    return AddedToken(content, special=slot not in MARKUP, normalized=False)


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids that the checkpoint's configuration names."""
    ids = {mark: tokenizer.token_to_id(mark) for mark in (*SPECIAL.values(), *MARKUP.values())}
    missing = [mark for mark, token_id in ids.items() if token_id is None]
    if missing:
        raise ValueError(f"tokenizer lacks {missing}")
    return {mark: int(token_id) for mark, token_id in ids.items()}


def tokenizer_config(max_length: int) -> dict[str, Any]:
    """Return tokenizer_config.json's content."""
    return {
        # Not GPT2Tokenizer, which the published file names: transformers 5.0 to 5.3 then
        # rebuild the pre-tokenizer and ignore tokenizer.json.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(tokenizer_config(max_length), indent=2)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
