"""Any backbone of timm that gives features: ``timm:NAME`` (``timm.list_models()`` names them).

Networks without a class token give a map, which is pooled; transformers with one give that, after the norm.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from icsr_cli.errors import InputError, ModelError, did_you_mean, reason
from icsr_cli.models.backbones import OWN, Architecture, Backbone, Layout, Make, State
from icsr_cli.models.sources import Source, download
from icsr_cli.models.unfilled import unfilled
from icsr_cli.types import IMAGENET, PIXEL_NORMS, PixelNorm, Size

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


def _norm_of_tokens(state: State) -> State:
    """Give the norm of networks that averaged their tokens before it the name of a norm of tokens."""
    if "base.norm.weight" in state:
        return state
    return {name.replace("base.fc_norm.", "base.norm."): value for name, value in state.items()}


def _openai(state: State) -> State:
    """Give the class token and the positions of OpenAI's the shapes of timm's."""
    shapes = {"base.cls_token": (1, 1), "base.pos_embed": (1,)}
    return {
        name: value.reshape(*shapes[name], *value.shape) if name in shapes else value
        for name, value in state.items()
    }


def _quick_gelu(network: nn.Module) -> str | None:
    """Say what is wrong where a network has another activation than OpenAI's CLIP."""
    if any(type(part).__name__ == "QuickGELU" for part in network.modules()):
        return None
    return "OpenAI's CLIP has QuickGELU: take timm:vit_base_patch16_clip_quickgelu_224 or another of its kind"


_RESBLOCK = r"visual\.transformer\.resblocks\.(\d+)\."
_OPENAI: list[tuple[str, str | None]] = [
    (r"visual\.conv1\.", "base.patch_embed.proj."),
    (r"visual\.class_embedding$", "base.cls_token"),
    (r"visual\.positional_embedding$", "base.pos_embed"),
    (r"visual\.ln_pre\.", "base.norm_pre."),
    (r"visual\.ln_post\.", "base.norm."),
    (rf"{_RESBLOCK}ln_(\d)\.", r"base.blocks.\1.norm\2."),
    (rf"{_RESBLOCK}attn\.in_proj_", r"base.blocks.\1.attn.qkv."),
    (rf"{_RESBLOCK}attn\.out_proj\.", r"base.blocks.\1.attn.proj."),
    (rf"{_RESBLOCK}mlp\.c_fc\.", r"base.blocks.\1.mlp.fc1."),
    (rf"{_RESBLOCK}mlp\.c_proj\.", r"base.blocks.\1.mlp.fc2."),
    # The projection to the words' space, and the tower of the words.
    (r"visual\.proj$", None),
    (r"(?:transformer|token_embedding|ln_final)\.", None),
    (r"(?:positional_embedding|text_projection|logit_scale)$", None),
    (r"(?:input_resolution|context_length|vocab_size)$", None),
]
_DINO: list[tuple[str, str | None]] = [
    (r"(?:module\.)?head\.", None),
    (r"(?:module\.)?backbone\.", "base."),
]
#: Classifiers, and pooling by attention; some networks have layers of their features under such names.
_HEADS = r"base\.(?:head|head_dist|aux_head|attn_pool|classifier|classif|last_linear|fc|merger)\."
LAYOUTS = (
    OWN,
    Layout(
        "CLIP, OpenAI's names", r"visual\.", _OPENAI, _openai, lambda state: PIXEL_NORMS["clip"], _quick_gelu
    ),
    Layout("DINO", r"(?:module\.)?backbone\.", _DINO),
    Layout("timm", "", [("", "base.")], _norm_of_tokens, spare=_HEADS),
)


#: What ``icsr models`` shows of timm's networks, of which there are a thousand; timm hardly names papers.
SHOWN = {
    "timm:vit_small_patch16_224": "arXiv 2010.11929",
    "timm:vit_base_patch16_clip_quickgelu_224.openai": "arXiv 2103.00020",
    "timm:vit_small_patch14_dinov2": "arXiv 2304.07193",
    "timm:vit_small_patch16_dinov3": "arXiv 2508.10104",
    "timm:swin_tiny_patch4_window7_224": "arXiv 2103.14030",
    "timm:convnext_tiny": "arXiv 2201.03545",
    "timm:efficientnet_b0": "arXiv 1905.11946",
    "timm:mobilenetv4_conv_small": "arXiv 2404.10518",
}


_LUPERSON = Source("https://github.com/damo-cv/TransReID-SSL", "see its page (LUPerson)")
#: Weights that timm does not have.
_PEOPLE = {"vit_small_patch16_224": {"LUPerson": _LUPERSON}}


@cache
def architecture(name: str) -> Architecture:
    """Describe timm's network ``name`` (with or without a tag of its weights, ``NAME.TAG``).

    Raises InputError where timm has none of that name, or it gives no features.
    """
    known = _config(name)
    probe = _probe(name)
    licence = known.license or "see its page"
    hub = Source(f"https://huggingface.co/{known.hf_hub_id}", licence) if known.hf_hub_id else None
    return Architecture(
        partial(_make, name),
        LAYOUTS,
        None,
        partial(_fetch, name) if known.hf_hub_id else None,
        known.input_size[1:],
        pooling="cls" if probe.class_token else "avg",
        norm=PixelNorm(tuple(known.mean), tuple(known.std)) if known.mean else IMAGENET,  # type: ignore[arg-type]
        has_drop_path=True,
        patch=probe.patch,
        pages=({"timm's": hub} if hub else {}) | _PEOPLE.get(name, {}),
        grids=((16, 8), (24, 8)),
        paper=SHOWN.get(f"timm:{name}"),
    )


def _config(name: str) -> PretrainedCfg:
    import timm
    from timm.models import PretrainedCfg

    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        hint = did_you_mean(f"timm:{plain}", [f"timm:{known}" for known in timm.list_models()])
        raise InputError(
            f"arch: timm {timm.__version__} has no {plain!r}.{hint} python -c 'import timm; "
            "print(*timm.list_models())' lists what it has."
        )
    try:
        return timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError:
        tags = ", ".join(tag.partition(".")[2] for tag in timm.list_pretrained(f"{plain}.*"))
        raise InputError(
            f"arch: timm has {plain!r}, but no weights {name.partition('.')[2]!r} of it: {tags}."
        ) from None


def create(name: str, wish: Make, **more: Any) -> nn.Module:
    """Make timm's network without classifier and pooling; ``more`` are options of timm's.

    Raises InputError where it cannot be made so.
    """
    import timm

    known = _config(name)
    options: dict[str, Any] = {"num_classes": 0, "global_pool": "", **more}
    if known.fixed_input_size:
        options["img_size"] = wish.size
    if name.startswith("swin_"):
        # Else a window shrinks with a small map, and the tables of published weights no longer fit.
        options["always_partition"] = True
    if wish.drop_path:
        options["drop_path_rate"] = wish.drop_path
    try:
        network: nn.Module = timm.create_model(name, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"timm:{name} cannot be made for images of {wish.size[0]} x {wish.size[1]} with drop_path "
            f"{wish.drop_path:g} ({reason(error)})."
        ) from error
    return network


@cache
def _probe(name: str) -> Backbone:
    """Look at the shape of what ``name`` gives, without computing anything; its layers hold no numbers."""
    size = _config(name).input_size[1:]
    network, found = _looked_at(name, size)
    if not isinstance(found, Tensor) or found.dim() not in (3, 4):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"arch: timm:{name} gives {shape}, no map of features and no tokens.")
    if found.dim() == 4:
        last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return Backbone(network, found.shape[3] if last else found.shape[1], "last" if last else "map")
    # Registers stand before the patches, too; some networks do not count their class token.
    named = any(own.rpartition(".")[2] == "cls_token" for own, _ in network.named_parameters())
    for prefix in (int(getattr(network, "num_prefix_tokens", 0)) or int(named), 0):
        patch = _patch(found.shape[1] - prefix, size)
        if patch:
            return Backbone(network, found.shape[2], "tokens", prefix, patch, class_token=named)
    raise InputError(f"arch: timm:{name} gives {found.shape[1]} tokens, no rows and columns of patches.")


def _looked_at(name: str, size: Size) -> tuple[nn.Module, Any]:
    """Give ``name`` without numbers, and what it makes of an image of ``size``."""
    with unfilled():
        network = create(name, Make(size)).eval()
    with torch.no_grad():
        return network, network(torch.empty(1, 3, *size, device="meta"))


def _patch(count: int, size: Size) -> int:
    """Give the edge in pixels of ``count`` square patches of an image, 1 of none; 0 where they do not fit."""
    if count < 1:
        return int(count == 0)
    edge = math.isqrt(size[0] * size[1] // count)
    return edge if (size[0] // edge) * (size[1] // edge) == count else 0


def _make(name: str, wish: Make) -> Backbone:
    known, probe = _config(name), _probe(name)
    network = create(name, wish)
    _try(name, wish.size)
    return probe._replace(layers=network, sized=bool(known.fixed_input_size))


@cache
def _try(name: str, size: Size) -> None:
    """Raise InputError where ``name`` takes no images of ``size``, which some find out as they compute."""
    try:
        _looked_at(name, size)
    except RuntimeError as error:
        own = _config(name).input_size[1:]
        raise InputError(
            f"timm:{name} takes no images of {size[0]} x {size[1]} ({reason(error)}). It was made for "
            f"{own[0]} x {own[1]}: --height {own[0]} --width {own[1]}."
        ) from error


def _fetch(name: str) -> State:
    """Give the weights of timm's hub, by timm's own names; they are fetched only where that was asked for.

    Raises ModelError where they are not here and nobody asked for a download, or they cannot be fetched.
    """
    import timm
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    known = _config(name)
    assert known.hf_hub_id is not None, "only then it is asked for"
    file = known.hf_hub_filename or "model.safetensors"
    here = try_to_load_from_cache(known.hf_hub_id, file)
    where = f"https://huggingface.co/{known.hf_hub_id} (licence: {known.license or 'see there'})"
    ways = f"Download {file} from {where} and name it with --init FILE, or take --init none."
    if not isinstance(here, str):
        what = f"Weights of timm:{name}: {file} of {known.hf_hub_id}"
        here = download(what, "on this machine", ways, partial(hf_hub_download, known.hf_hub_id, file))
    try:
        # As timm makes it, at its own size: timm knows the names in its files, and loads strictly.
        network: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(here)})
    except (RuntimeError, OSError, KeyError) as error:
        raise ModelError(f"{here}: timm cannot load it as {name} ({reason(error)}). {ways}") from error
    network.reset_classifier(0, "")  # whatever its name
    return dict(network.state_dict())
