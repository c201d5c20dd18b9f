"""Which of timm's options a model's description may give, and what they may be.

These are the constructors' arguments that are plain data: numbers, yes or no, one of a few words, and short lists of
them. What timm reads elsewhere (`pretrained`, `checkpoint_path`, `cache_dir`, `pretrained_cfg` and their like), what
changes the kind of network (`features_only`, `scriptable`, `pruned`) and what is code is not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from patchlight.errors import PatchlightError, did_you_mean
from patchlight.machine.process import import_library
from patchlight.models.bounds import LARGEST, MOST_CLASSES, MOST_NUMBER, SMALLEST, check_plain, shown

FLAGS = """aa_stem_only abs_win_pos_embed always_partition attn attn_mlp attn_only_layer_scale aux_logits avg_down
basic bidirectional channel_attention channel_attn_v2 class_token conv_bias conv_init conv_mlp cpe_act crop_scale
distillation distilled downsample_block downsamples dynamic_img_pad dynamic_img_size extra_norm_stage fc_norm ffn
final_norm fix_init fix_stem fork_feat fused_conv fused_downsample head_bias head_norm head_norm_first input_3x3
is_downsample_block legacy linear lkc_use_act mask_unit_attn memory_efficient mlp_bias multi_conv named_blocks nlhb
no_embed_class normalize_modulator outlook_attention patch_norm pool_include_prefix pre_norm preact proj_bias qk_norm
qkv_bias qkv_fused replace_stem_pool rope_rotate_half scale_attn_inner scale_attn_norm scale_mlp scale_mlp_norm
se_downsamples se_from_exp sep_pos_embed sequential_attn shared_rel_pos shortcut_root small small_kernels standardize
stem_bias stem_mid_norm stem_norm stem_use_scale_branch strict_img_size swiglu_mlp tokens_norm transformer_drop_path
use_abs_pos use_abs_pos_emb use_aux_head use_clipped_linears use_conv use_expand_proj use_fc_norm use_grn use_lab
use_layer_scale use_mix_token use_mlp_head use_msfa use_overlap_down use_pos_emb use_pos_embed use_post_norm
use_post_norm_in_modulation use_post_transformer_norm use_pre_transformer_norm use_rel_pos use_rel_pos_bias use_rope
use_rot_pos_emb use_shared_rel_pos_bias v2 vit_stem with_fc zero_init_last""".split()

WORDS = """aa_layer act_layer attn_act_layer attn_stage attn_type attn_types attn_upsample block_type down_op down_ops
downsample dw_act_layer embed_norm_layer encoder_pool fc_act_layer global_pool head_fn local_mbconv_norm norm_layer
norm_layer_cl pad_type pconv_fw_type pos_embed post_layers rel_pos_type rope_grid_indexing rope_type se_layer
spatial_conv stem_type token_mixers types union version weight_init""".split()

NUMBERS = """attn_drop_rate attn_groups attn_head_dim_reduction attn_mlp_ratio attn_pool_mlp_ratio attn_pool_num_heads
attn_ratio base_dim base_dims base_width block_config block_reduce_first bn_size bottle_ratio bottleneck_width_ratio
cardinality ch_div channel_multiplier channels cls_attn_layers cls_ratio conv_ratio d2_scales deepen_factor depth
depth_mult depth_token_only depths dim_mul dims down_kernel_size down_pad down_patch_size down_stride
downsample_expand_ratios downsample_kernel_size downsample_padding downsample_ratio drop_block_rate drop_block_size
drop_path_rate drop_rate embed_dim embed_dims eta expand_groups expand_ratio expansion_ratio extra_norm_period
feature_dim ffn_ratio final_chs first_stride focal_levels focal_windows global_att_blocks global_attn_indexes
global_block_counts global_pos_size group groups growth_rate growth_rates head_dim head_hidden_size head_init_scale
head_mul head_widths heads hidden_sizes img_scale img_size in_chans inc_sec init_channels init_values initial_chs
inner_dim inplanes intermediate_size k_r k_sec kernel_size kernel_sizes kernels key_dim layer_scale
layer_scale_init_value layer_scale_init_values layers layerscale_value local_conv_size local_up_to_layer
locality_strength ls_init_value mask_unit_size mbconv_expand_ratio merge_size mix_block_ratio mlp_ratio
mlp_ratio_token_only mlp_ratios msfa_indices msfa_output_resolution n_div neck_chans norm_eps num_blocks num_blocks_list
num_features num_heads num_heads_inner num_heads_outer num_init_features num_kv_heads num_levels num_reg_tokens
num_rnn_layers num_vit out_features output_stride parallel_depth partial_dim patch_drop_rate patch_kernel patch_padding
patch_size patch_sizes patch_stride pool_size pooling_kernel_size pooling_scale pos_drop_rate pos_embed_grid_size
position_embedding_size pretrained_window_sizes proj_drop_rate q_pool q_stride qk_dim ref_feat_shape reg_tokens
rel_pos_dim repmixer_kernel_size res_scale_init_values rope_grid_offset rope_mrope_section rope_temperature rope_theta
scale se_ratio serial_depths sr_ratios ssd_expand stages state_dim stem_chs stem_expand_ratio stem_hidden_dim
stem_kernel_size stem_size stem_stride stem_width stride strides swiglu_align_to transformer_depths
transition_compression_ratio widen_factor width width_factor width_mult widths window_ratio window_size window_sizes
window_spec""".split()

# Of each option what stands in it, beside null and (nested) lists of it. "qkv_bias", "fc_norm" and the like are flags.
KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    **dict.fromkeys(FLAGS, ("true or false", (bool,))),
    **dict.fromkeys(WORDS, ("a word", (str, bool))),
    **dict.fromkeys(NUMBERS, ("a number", (int, float))),
    "num_classes": ("a number", (int,)),
    "down_ops": ("words and numbers", (str, int)),
}


def check_architecture(name: Any) -> None:
    """Raises PatchlightError for anything but the plain name of a model of timm's registry."""
    if not isinstance(name, str) or not name.isidentifier() or not import_library("timm").is_model(name):
        raise PatchlightError(
            f"'architecture' is {shown(name)}; it must be the plain name of a model of this version of timm, without a "
            "tag, a path or a place to load from"
        )


def check_options(options: Any, where: str) -> None:
    """Raises PatchlightError, naming the option, where one of them is not allowed or of another kind."""
    if not isinstance(options, Mapping):
        raise PatchlightError(f"'{where}' is {shown(options)}; it must be an object of timm's options")
    for key, value in options.items():
        if key not in KINDS:
            raise PatchlightError(
                f"'{where}' has the option {shown(key)}, which is none that describes a network by plain data; "
                f"{did_you_mean(str(key)[:80], KINDS)}"
            )
        check_plain(value, f"{where}.{key}", MOST_CLASSES if key == "num_classes" else MOST_NUMBER)
        words, types = KINDS[key]
        if any(type(item) not in types for item in _items(value)):
            raise PatchlightError(f"{where}.{key} is {shown(value)}; it must be {words}, or a list of that")


def check_weights(about: Any) -> None:
    """Raises PatchlightError where timm's `pretrained_cfg` says of the images what no images are. Its other keys are
    timm's own, which reads weights of the folder or repository that was named, whatever addresses stand there.
    """
    if not isinstance(about, Mapping):
        raise PatchlightError(f"'pretrained_cfg' is {shown(about)}; it must be an object")
    for key, (lengths, low, high, words) in IMAGES.items():
        values: Any = about.get(key)
        if values in (None, ""):
            continue
        if key != "crop_pct" and not isinstance(values, (list, tuple)):
            raise PatchlightError(f"'{key}' is {shown(values)}; it must be a list of {words}")
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        if len(values) not in lengths or not all(type(v) in (int, float) and low <= v <= high for v in values):
            raise PatchlightError(f"'{key}' is {shown(about[key])}; it must be {words}")
    for key in ("interpolation", "crop_mode"):
        check_plain(about.get(key), f"'{key}'")
    classes = about.get("num_classes", 0)
    if type(classes) is not int or not 0 <= classes <= MOST_CLASSES:
        raise PatchlightError(f"'num_classes' is {shown(classes)}; it must be a whole number up to {MOST_CLASSES:,}")


SIDES = f"channels, height and width, up to {MOST_NUMBER:,}"
# How many numbers there can be, the least and the greatest of them, and what they are in words.
IMAGES: dict[str, tuple[tuple[int, ...], float, float, str]] = {
    "mean": ((1, 3), -LARGEST, LARGEST, "one or three finite numbers"),
    "std": ((1, 3), SMALLEST, LARGEST, "one or three numbers above 0"),
    "input_size": ((3,), 1, MOST_NUMBER, SIDES),
    "crop_pct": ((1,), 0.01, 10, "a number above 0"),
}


def _items(value: Any) -> Iterator[Any]:
    """What stands in nested lists, null left out."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _items(item)
    elif value is not None:
        yield value
