"""The vocabulary as a Hugging Face tokenizer, with the same ids on whole contigs as the store."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, normalizers, processors
from tokenizers.models import BPE

from grover_dist.bpe.vocabulary import BASES, SPECIAL_TOKENS, Vocabulary
from grover_dist.run_dir import write_atomically

_ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def make_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Merges by rank on the upper-cased text; every letter but A, C, G, T is one [UNK], which nothing merges across.

    Adds [CLS] and [SEP] unless `add_special_tokens=False`.
    """
    strings = vocabulary.strings()
    ids = {string: token for token, string in enumerate(strings)}
    merges = [(strings[a], strings[b]) for a, b in zip(vocabulary.left.tolist(), vocabulary.right.tolist(), strict=True)]
    tokenizer = Tokenizer(BPE(vocab=ids, merges=merges, unk_token="[UNK]", fuse_unk=False, ignore_merges=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(base.lower(), base) for base in BASES])
    # Special tokens are matched in the raw text, before the normalizer.
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    cls, sep = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return tokenizer


def save_tokenizer(vocabulary: Vocabulary, folder: Path, max_length: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(vocabulary)
    write_atomically(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    config = {
        **_ROLES,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "padding_side": "right",
        "truncation_side": "right",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    write_atomically(folder / "tokenizer_config.json", json.dumps(config, indent=1).encode())
    write_atomically(folder / "special_tokens_map.json", json.dumps(_ROLES, indent=1).encode())
