"""The one list of keys in a config.json of GPT-NeoX: which we read, which mean nothing, which may have only one value.

arch/gpt_neox.py and arch/rotary.py read the values, and tokenizer/ the ids of tokens. The keys are those of
transformers 4.57.6 and 5.24: GPTNeoXConfig, PretrainedConfig, GenerationConfig, and keys that the code of all models
looks up (cache_utils.py, masking_utils.py, modeling_utils.py). A key in none of them means nothing to transformers
either: we leave it out with a note, unless it looks like a misspelling of a key that we read and that is missing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

from pythia_gguf.arch.keys import Keys
from pythia_gguf.errors import one_line

# Whether a value changes nothing, given all keys.
_Harmless = Callable[[object, Mapping[str, object]], bool]

# We read these. Null would be another value than the default, or a value that transformers cannot compute with.
READ = frozenset(
    """model_type vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings
    hidden_act layer_norm_eps use_parallel_residual tie_word_embeddings rotary_pct rotary_emb_base""".split()  # noqa: SIM905 - else a line for each
)
# We read these; null says nothing.
READ_OR_NULL = frozenset(
    """architectures rope_scaling rope_parameters rope_theta partial_rotary_factor bos_token_id eos_token_id
    pad_token_id sep_token_id unk_token_id cls_token_id mask_token_id _name_or_path""".split()  # noqa: SIM905 - else a line for each
)
# No result of a GPT-NeoX model depends on these.
MEANS_NOTHING = frozenset(
    """
    name_or_path transformers_version _commit_hash dtype torch_dtype tokenizer_class prefix task_specific_params
    unsloth_version unsloth_fixed custom_pipelines
    use_cache return_dict output_hidden_states output_attentions tie_last_hidden_states torchscript
    use_bfloat16 tf_legacy_loss xla_device chunk_size_feed_forward gradient_checkpointing cache_implementation
    attn_implementation _attn_implementation _attn_implementation_internal _attn_implementation_autoset
    experts_implementation _experts_implementation _experts_implementation_internal fusion_config distributed_config
    initializer_range attention_dropout hidden_dropout classifier_dropout hidden_dropout_prob
    attention_probs_dropout_prob
    id2label label2id num_labels problem_type finetuning_task
    is_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder decoder_start_token_id
    max_length max_new_tokens min_length min_new_tokens do_sample early_stopping num_beams temperature top_k top_p min_p
    typical_p epsilon_cutoff eta_cutoff repetition_penalty encoder_repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens num_beam_groups diversity_penalty
    num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold assistant_lookbehind
    target_lookbehind
    """.split()  # noqa: SIM905 - else a line for each
)


def _one_of(*values: object) -> _Harmless:
    return lambda value, config: value in values


def _is_full_attention(value: object, config: Mapping[str, object]) -> bool:
    return value is None or (isinstance(value, list) and all(kind == "full_attention" for kind in value))


def _is_own_head_dim(value: object, config: Mapping[str, object]) -> bool:
    hidden, n_heads = config.get("hidden_size"), config.get("num_attention_heads")
    whole = isinstance(hidden, int) and isinstance(n_heads, int) and isinstance(value, int) and n_heads > 0
    return value is None or (whole and value == hidden // n_heads)  # type: ignore[operator]


_ONLY_NULL, _ONLY_EMPTY, _ONLY_FALSE = _one_of(None), _one_of(None, {}, []), _one_of(None, False)
_QUANTIZED = "the weights are quantized already{by}: take the original model"
_OTHER_ATTENTION = (
    "a GGUF of this architecture attends to all tokens before, got {value}. Delete it if the model was trained without"
)
_PARTS = "names a part of a larger model, got {value}. Give the language model alone"
# These may only have values that change nothing; for others, what the key means, and what the user can do.
REFUSED: dict[str, tuple[_Harmless, str]] = {
    "quantization_config": (_ONLY_NULL, _QUANTIZED),
    "quantization": (_ONLY_NULL, _QUANTIZED),  # of MLX
    "compression_config": (_ONLY_NULL, _QUANTIZED),
    "attention_bias": (_one_of(True), "expected true, got {value}: a GGUF of this architecture has attention biases"),
    "is_causal": (_one_of(None, True), _OTHER_ATTENTION),
    "sliding_window": (_ONLY_NULL, _OTHER_ATTENTION),
    "attention_chunk_size": (_ONLY_NULL, _OTHER_ATTENTION),
    "layer_types": (_is_full_attention, _OTHER_ATTENTION),
    "kv_sharing_modes": (_ONLY_NULL, _OTHER_ATTENTION),
    "head_dim": (_is_own_head_dim, "expected hidden_size / num_attention_heads, got {value}. Delete it"),
    "per_layer_config": (_ONLY_EMPTY, "layers that differ are not supported, got {value}"),
    "pruned_heads": (_ONLY_EMPTY, "pruned heads are not supported, got {value}. Delete it if the weights are whole"),
    "is_encoder_decoder": (_ONLY_FALSE, "expected false, got {value}: GPT-NeoX has no encoder. Delete it"),
    "text_config": (_ONLY_NULL, _PARTS),
    "text_encoder": (_ONLY_NULL, _PARTS),
    "decoder": (_ONLY_NULL, _PARTS),
    "generator": (_ONLY_NULL, _PARTS),
    "attribute_map": (_ONLY_EMPTY, "other names of keys are not followed, got {value}. Write the keys themselves"),
    "transformers_weights": (_ONLY_NULL, "names other weights: {value}. Call them model.safetensors, and delete it"),
    "configuration_files": (_ONLY_EMPTY, "names other configs: {value}. Call the right one config.json"),
}
_OWN_CODE = "auto_map"  # not run, and transformers does not run it unasked
_MOST_NAMED = 5
_MOST_COMPARED = 1000  # with known keys; a million would take minutes
_ALIKE = 0.85  # "rotary_pcts", "layer_norm_epsilon", but not "hidden_activation", which other models have


def check_keys(keys: Keys) -> tuple[str, ...]:
    """Notes on keys that were left out, one line each.

    Raises ModelFileError for a key with a value that it may not have, for null where a value must be, and for a
    misspelled key whose right spelling is missing.
    """
    unknown: list[str] = []
    for key, value in keys.values.items():
        if key in REFUSED:
            _check_harmless(keys, key, value)
        elif key in READ:
            if value is None:
                keys.fail("expected a value, got null. Give one, or delete the key", key)
        elif key not in READ_OR_NULL and key not in MEANS_NOTHING and key != _OWN_CODE:
            if len(unknown) < _MOST_COMPARED:
                _refuse_misspelled(keys, key)
            unknown.append(key)
    notes = []
    if keys.get(_OWN_CODE) is not None:
        notes.append(f"{_OWN_CODE} names code of its own, which is not run: the model is read as GPT-NeoX")
    if unknown:
        shown = ", ".join(one_line(key, 60) for key in unknown[:_MOST_NAMED])
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        notes.append(f"left out, as GPT-NeoX has no such key: {shown}{more}")
    return tuple(notes)


def _check_harmless(keys: Keys, key: str, value: object) -> None:
    is_harmless, what = REFUSED[key]
    if not is_harmless(value, keys.values):
        method = value.get("quant_method") if isinstance(value, dict) else None
        by = f" by {one_line(method, 40)}" if isinstance(method, str) else ""
        keys.fail(what.format(value=one_line(repr(value), 80), by=by), key)


def _refuse_misspelled(keys: Keys, key: str) -> None:
    missing = {_letters(known): known for known in READ if known not in keys.values}
    if close := difflib.get_close_matches(_letters(key[:80]), missing, n=1, cutoff=_ALIKE):
        meant = missing[close[0]]
        keys.fail(f"no such key, and {meant} is missing. Did you mean {meant}? Rename the key or delete it", key)


def _letters(key: str) -> str:
    return re.sub("[^a-z0-9]", "", key.lower())
