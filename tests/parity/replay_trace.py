"""Replay a trace directory through `mint_stream`'s own classes and compare every recorded number.

    python tests/parity/replay_trace.py ../shared/traces/a

Prints the largest absolute difference for each recorded quantity. Exit status: 0 if everything
agrees, 1 if a discrete choice differs or a number is off by more than 1e-6, 2 if the directory is
not a complete trace or asks for what the product does not do.

Shape suffixes: V views, Q query levels, K entries, D vision width, P prompt rows, N context
tokens, W text width, C classes, E width of the joint embedding, S steps, n images.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from trace_files import Trace, TraceError, differences, read_trace

from mint_stream.clip.encoder import ImageEncoder
from mint_stream.clip.model import LoadedClip, Preprocess, check_model
from mint_stream.config import ConfigError, MethodConfig
from mint_stream.method.adapter import MintAdapter, Step
from mint_stream.method.retrieval import Retrieval

TOLERANCE = 1e-6
FIXED = {"inject_layers": (0,), "betas": (0.9, 0.999), "eps": 1e-8}
"""What METHOD.md leaves no choice about, and the product therefore does not make configurable."""

NEEDED = {
    *("n_views", "bank_size", "prompt_length", "top_k", "query_layers", "inject_layers"),
    *("n_ctx", "steps", "selection_fraction", "learning_rate", "weight_decay"),
    *("distance_weight", "betas", "eps"),
}


def method_config(hyper_parameters: Mapping[str, Any]) -> MethodConfig:
    """The product's preset for a trace's hyper-parameters (the names of `meta.json`).

    Raises:
        TraceError: the trace asks for what METHOD.md fixes otherwise, or lacks a value.
        ConfigError: a value is one that the product refuses.
    """
    absent = sorted(NEEDED - hyper_parameters.keys())
    if absent:
        raise TraceError(f"the trace does not say {', '.join(absent)}")
    for name, value in FIXED.items():
        asked = hyper_parameters[name]
        if (tuple(asked) if isinstance(asked, list) else asked) != value:
            raise TraceError(f"{name} is {asked!r}; the product has only {value!r}")
    levels = list(hyper_parameters["query_layers"])
    if levels != sorted(set(levels)):
        raise TraceError(f"query_layers is {levels}; it must be ascending")
    return MethodConfig(
        name="replay",
        views=hyper_parameters["n_views"],
        bank_size=hyper_parameters["bank_size"],
        prompt_rows=hyper_parameters["prompt_length"],
        retrieved=hyper_parameters["top_k"],
        query_levels=len(levels),
        # Replaced by the trace's own numbers; one token a word reserves as many positions.
        context=" ".join(["a"] * hyper_parameters["n_ctx"]),
        steps=hyper_parameters["steps"],
        confident_share=hyper_parameters["selection_fraction"],
        learning_rate=hyper_parameters["learning_rate"],
        weight_decay=hyper_parameters["weight_decay"],
        distance_weight=hyper_parameters["distance_weight"],
    )


def start_adapter(
    model: CLIP,
    class_names: Sequence[str],
    hyper_parameters: Mapping[str, Any],
    *,
    context_NW: Tensor,
    keys_KD: Tensor,
    prompts_KPD: Tensor,
    usage_K: Tensor,
    dtype: torch.dtype = torch.float64,
) -> MintAdapter:
    """The product's adapter at the start of a run, on the CPU. `model` is cast and frozen.

    Raises:
        TraceError: the trace asks for what the product does not do.
        ConfigError: the model or a hyper-parameter is one that the product refuses.
    """
    method = method_config(hyper_parameters)
    check_model(model, "of the trace")
    size = model.visual.image_size
    clip = LoadedClip(
        model=model.to(dtype).eval().requires_grad_(False),
        tokenizer=SimpleTokenizer(context_length=model.context_length),
        preprocess=Preprocess(
            size=size[0] if isinstance(size, tuple) else size,
            mean=OPENAI_DATASET_MEAN,
            std=OPENAI_DATASET_STD,
            interpolation="bicubic",
        ),
        device=torch.device("cpu"),
        dtype=dtype,
    )
    adapter = MintAdapter(clip, [(name,) for name in class_names], method)
    adapter.encoder = ImageEncoder(model.visual, tuple(hyper_parameters["query_layers"]))
    adapter.context_init_NW = context_NW.to(dtype)
    adapter.load_bank(keys_KD.numpy(), prompts_KPD.numpy(), usage_K.numpy())
    adapter.reset()
    return adapter


def record_stream(adapter: MintAdapter, views_nVCHW: Tensor) -> dict[str, Tensor]:
    """Adapt to n images in turn (n, V, 3, H, W); what happened, under a trace's names.

    `encode_image.plain` is of unit length here: the product has no other.
    """
    records: dict[str, list[Tensor]] = {}

    def record(name: str, value: Tensor) -> None:
        records.setdefault(name, []).append(value.detach().clone())

    with torch.no_grad():
        text_CE = adapter.text.features(adapter.context_init_NW)
    for views_VCHW in views_nVCHW:
        steps: list[Step] = []
        final: list[Retrieval] = []
        seen = adapter.look(views_VCHW)
        record("encode_image.plain", seen.source_VE[0])
        record("logits.zero_shot", adapter.logits(seen.source_VE[:1], text_CE)[0])
        record("queries", seen.query_VQD.transpose(0, 1))
        adapter.reset()
        adapter.adapt(seen, observe=steps.append)
        logits_C = adapter.predict(seen, observe=final.append)[0]
        retrievals = [step.retrieval for step in steps]
        record("retrieved.indices", torch.stack([r.indices_BQR.flatten(1) for r in retrievals]))
        record("retrieved.distances", torch.stack([r.distances_BQR.flatten(1) for r in retrievals]))
        record("logits.steps", torch.stack([step.logits_VC for step in steps]))
        record("loss", torch.stack([step.loss for step in steps]))
        record("ctx.after_step", torch.stack([step.context_NW for step in steps]))
        record("confident_views", steps[0].chosen)
        record("bank.keys.after_image", adapter.bank.keys_KD)
        record("bank.prompts.after_image", adapter.bank.prompts_KPD)
        record("bank.usage.after_image", adapter.bank.usage_K)
        record("final.indices", final[0].indices_BQR.flatten())
        record("final.distances", final[0].distances_BQR.flatten())
        record("logits.final", logits_C)
    stacked = {name: torch.stack(values) for name, values in records.items()}
    return {"encode_text.init": text_CE, **stacked}


def replay(trace: Trace) -> dict[str, Tensor]:
    """Run the product over a trace's views, in float64; see `record_stream`."""
    start = trace.tensors
    adapter = start_adapter(
        trace.build_clip(),
        trace.meta["classnames"],
        trace.hyper_parameters,
        context_NW=start["ctx.init"],
        keys_KD=start["bank.keys.init"],
        prompts_KPD=start["bank.prompts.init"],
        usage_K=start["bank.usage.init"],
    )
    return record_stream(adapter, start["views"].to(torch.float64))


def report(trace: Trace, computed: Mapping[str, Tensor], tolerance: float = TOLERANCE) -> bool:
    """Print the table of differences; whether everything agrees.

    Raises:
        TraceError: the trace lacks a quantity that METHOD.md names.
    """
    recorded = dict(trace.recorded)
    missing = sorted(computed.keys() - recorded.keys())
    if missing:
        raise TraceError(f"the trace does not record {', '.join(missing)}")
    recorded["encode_image.plain"] = F.normalize(recorded["encode_image.plain"], dim=-1)
    unknown = sorted(recorded.keys() - computed.keys())
    found = differences({name: recorded[name] for name in computed}, computed)
    print(f"{'quantity':<26} {'largest difference':>22}")
    for difference in found:
        form = "{:.0f} unequal" if difference.discrete else "{:.3g}"
        mark = "  DIFFERS" if difference.exceeds(tolerance) else ""
        print(f"{difference.name:<26} {form.format(difference.largest):>22}{mark}")
    for name in unknown:
        print(f"{name:<26} {'not compared':>22}")
    n_failed = sum(difference.exceeds(tolerance) for difference in found)
    n_images = len(trace.tensors["views"])
    verdict = f"{n_failed} of {len(found)} differ" if n_failed else f"all {len(found)} agree"
    print(f"{n_images} images, tolerance {tolerance:g}: {verdict}")
    return n_failed == 0


def main(arguments: Sequence[str]) -> int:
    """Replay the directory named by the only argument; the exit status."""
    if len(arguments) != 1:
        print("usage: python tests/parity/replay_trace.py DIR", file=sys.stderr)
        return 2
    try:
        trace = read_trace(Path(arguments[0]))
        return 0 if report(trace, replay(trace)) else 1
    except (TraceError, ConfigError) as error:
        print(f"cannot replay {arguments[0]}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    # The recorded models are so small that threads cost more than they save.
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
