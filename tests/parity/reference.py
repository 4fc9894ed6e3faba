"""A slow, obvious implementation of METHOD.md, independent of `mint_stream`.

Shape suffixes: B images (rows of one pass), V views, Q query levels, D vision width, K entries,
R retrieved for each level, P prompt rows, N context tokens, T text width, C classes, L positions
of a sequence, E width of the joint embedding, S steps, n images. `QR` is one axis of Q * R numbers,
level by level.

`PlainLoop` is for checking: retrieval, usage, assembly and AdamW are Python loops that follow
METHOD.md line by line. `PublishedLoop` does the same work with batched tensor operations and
torch's AdamW, as the published code would on a good day; it is what a benchmark compares with.
Neither saves anything: each step encodes all V views twice (query pass and prompted pass), and
text always has all of the model's positions. `counts` says how many encoder passes were made.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from reference_records import Bank, Counts, ForwardPass, ImageRecord, Prediction, Settings
from torch import Tensor


class PlainLoop:
    """The published loop with plain loops around everything but the encoders.

    Args:
        model: an open_clip CLIP with a ViT image tower; it is copied, cast and frozen.
        class_names: C names; underscores become spaces.
        settings: the hyper-parameters.
        context_NT: initial context tokens (N, T), restored before each image.
        bank: the bank at the start; it is copied, and `self.bank` changes from image to image.
        dtype: dtype of the model, the bank, the context and everything computed.
        tokenizer: encodes one string to a list of token ids (no SOS, no EOS).
    """

    def __init__(
        self,
        model: CLIP,
        class_names: Sequence[str],
        settings: Settings,
        *,
        context_NT: Tensor,
        bank: Bank,
        dtype: torch.dtype = torch.float64,
        tokenizer: SimpleTokenizer | None = None,
    ) -> None:
        self.model = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)
        self.visual = cast(VisionTransformer, self.model.visual)
        self.settings = settings
        self.dtype = dtype
        self.device = self.visual.class_embedding.device
        self.context_init_NT = context_NT.detach().to(self.device, dtype, copy=True)
        self.context_NT = self.context_init_NT.clone()
        self.bank = bank.copy(dtype=dtype, device=self.device)
        self.counts = Counts()
        tokens_CL, self.eos_C = self._tokenize(class_names, tokenizer or SimpleTokenizer())
        self.token_embeddings_CLT = self.model.token_embedding(tokens_CL)

    def _tokenize(
        self, class_names: Sequence[str], tokenizer: SimpleTokenizer
    ) -> tuple[Tensor, Tensor]:
        """Token ids (C, L) and the position of each EOS (C,). METHOD.md "One forward pass", 6.

        The N positions after SOS hold id 0: their embeddings are replaced by the context.
        """
        n_context, length = len(self.context_init_NT), self.model.context_length
        tokens_CL = torch.zeros(len(class_names), length, dtype=torch.int64, device=self.device)
        eos_C = torch.zeros(len(class_names), dtype=torch.int64, device=self.device)
        for c, name in enumerate(class_names):
            words = tokenizer.encode(name.replace("_", " ") + ".")
            sos, eos = tokenizer.sot_token_id, tokenizer.eot_token_id
            tokens = [sos, *[0] * n_context, *words, eos]
            if len(tokens) > length:
                raise ValueError(f"class name {name!r} needs {len(tokens)} of {length} positions")
            tokens_CL[c, : len(tokens)] = torch.tensor(tokens)
            eos_C[c] = len(tokens) - 1
        return tokens_CL, eos_C

    def encode_image(
        self, images_BCHW: Tensor, associative_BPD: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Query features (B, Q, D) and image features (B, E) before L2. METHOD.md 1, 5, 6.

        Args:
            images_BCHW: normalised images (B, 3, H, W).
            associative_BPD: the prompt of each image, or None for the pass without prompts.
        """
        self.counts.image_forwards += len(images_BCHW)
        visual = self.visual
        patches_BLD = visual.conv1(images_BCHW.to(self.device, self.dtype)).flatten(2).mT
        cls_B1D = visual.class_embedding.expand(len(images_BCHW), 1, -1)
        tokens_BLD = torch.cat([cls_B1D, patches_BLD], dim=1) + visual.positional_embedding
        tokens_BLD = visual.ln_pre(tokens_BLD)
        cls_after_block = []
        for number, module in enumerate(visual.transformer.resblocks):
            block = cast(ResidualAttentionBlock, module)
            if associative_BPD is not None and number in self.settings.inject_layers:
                tokens_BLD = self._block_with_prefix(block, tokens_BLD, associative_BPD)
            else:
                tokens_BLD = block(tokens_BLD)
            cls_after_block.append(tokens_BLD[:, 0])
        queries_BQD = torch.stack([cls_after_block[q] for q in self.settings.query_layers], dim=1)
        features_BE: Tensor = visual.ln_post(tokens_BLD[:, 0]) @ visual.proj
        return queries_BQD, features_BE

    def _block_with_prefix(
        self, block: ResidualAttentionBlock, tokens_BLD: Tensor, associative_BPD: Tensor
    ) -> Tensor:
        """One block whose keys and values carry half of the prompt each. METHOD.md 5."""
        half = associative_BPD.shape[1] // 2
        x_BLD = block.ln_1(tokens_BLD)
        cls_B1D, patches_BLD = x_BLD[:, :1], x_BLD[:, 1:]
        keys_BLD = torch.cat([cls_B1D, associative_BPD[:, :half], patches_BLD], dim=1)
        values_BLD = torch.cat([cls_B1D, associative_BPD[:, half:], patches_BLD], dim=1)
        attended_BLD = block.attn(x_BLD, keys_BLD, values_BLD, need_weights=False)[0]
        after_attention_BLD: Tensor = tokens_BLD + block.ls_1(attended_BLD)
        mlp_BLD: Tensor = block.ls_2(block.mlp(block.ln_2(after_attention_BLD)))
        return after_attention_BLD + mlp_BLD

    def encode_text(self, context_NT: Tensor) -> Tensor:
        """Normalised features (C, E) of `[SOS][ctx][class name].[EOS]`. METHOD.md 6."""
        model, n_classes = self.model, len(self.eos_C)
        self.counts.text_forwards += n_classes
        sos_C1T = self.token_embeddings_CLT[:, :1]
        rest_CLT = self.token_embeddings_CLT[:, 1 + len(context_NT) :]
        context_CNT = context_NT.expand(n_classes, -1, -1)
        tokens_CLT = torch.cat([sos_C1T, context_CNT, rest_CLT], dim=1)
        tokens_CLT = tokens_CLT + model.positional_embedding
        tokens_CLT = model.transformer(tokens_CLT, attn_mask=model.attn_mask)
        eos_CT = model.ln_final(tokens_CLT)[torch.arange(n_classes), self.eos_C]
        return F.normalize(eos_CT @ model.text_projection, dim=-1)

    def logits(self, image_BE: Tensor, text_CE: Tensor) -> Tensor:
        """exp(logit_scale) * image @ text.T, (B, C). METHOD.md 6.

        Args:
            image_BE: image features, not yet normalised (the traces record them so).
            text_CE: normalised text features.
        """
        image_BE = F.normalize(image_BE, dim=-1)
        scale: Tensor = self.model.logit_scale.exp()
        return scale * image_BE @ text_CE.T

    def retrieve(self, queries_BQD: Tensor, *, adapting: bool) -> tuple[Tensor, Tensor]:
        """Indices and (weighted) distances of the R nearest entries, both (B, Q, R). METHOD.md 2.

        Ascending within a level. Equal distances are ordered by the unweighted distance; what is
        equal there too, by the entry's number.
        """
        n_rows, n_levels, _ = queries_BQD.shape
        usage = self.bank.usage_K.tolist()
        n_entries, total = len(usage), sum(usage)
        weighted = adapting and 0 < total <= n_entries * n_rows
        indices: list[list[list[int]]] = []
        distances: list[Tensor] = []
        for b in range(n_rows):
            indices.append([])
            for q in range(n_levels):
                query_D = queries_BQD[b, q]
                plain: list[Tensor] = []
                used: list[Tensor] = []
                for k in range(n_entries):
                    key_D = self.bank.keys_KD[k]
                    cosine = query_D @ key_D / (query_D.norm() * key_D.norm())
                    plain.append(1 - cosine)
                    used.append(plain[k] * usage[k] / total if weighted else plain[k])
                ranks = [(used[k].item(), plain[k].item(), k) for k in range(n_entries)]
                nearest = [k for _, _, k in sorted(ranks)[: self.settings.top_k]]
                indices[b].append(nearest)
                distances.extend(used[k] for k in nearest)
        shape = (n_rows, n_levels, self.settings.top_k)
        return (
            torch.tensor(indices, dtype=torch.int64, device=self.device),
            torch.stack(distances).reshape(shape),
        )

    def count_usage(self, indices_BQR: Tensor) -> None:
        """Add one to an entry's count for every time it was retrieved. METHOD.md 3."""
        for k in indices_BQR.flatten().tolist():
            self.bank.usage_K[k] += 1

    def assemble(self, indices_BQR: Tensor) -> Tensor:
        """The associative prompts (B, P, D): means over Q * R retrieved prompts. METHOD.md 4."""
        associative = []
        for entries in indices_BQR.flatten(1).tolist():
            total_PD = torch.zeros_like(self.bank.prompts_KPD[0])
            for k in entries:
                total_PD = total_PD + self.bank.prompts_KPD[k]
            associative.append(total_PD / len(entries))
        return torch.stack(associative)

    def forward(self, images_BCHW: Tensor, context_NT: Tensor, *, adapting: bool) -> ForwardPass:
        """One forward pass over B images (B, 3, H, W). METHOD.md "One forward pass", 1 to 6."""
        with torch.no_grad():
            queries_BQD, _ = self.encode_image(images_BCHW)
        indices_BQR, distances_BQR = self.retrieve(queries_BQD, adapting=adapting)
        if adapting:
            self.count_usage(indices_BQR)
        associative_BPD = self.assemble(indices_BQR)
        _, image_BE = self.encode_image(images_BCHW, associative_BPD)
        text_CE = self.encode_text(context_NT)
        return ForwardPass(
            queries_BQD=queries_BQD,
            indices_BQR=indices_BQR,
            distances_BQR=distances_BQR,
            associative_BPD=associative_BPD,
            image_BE=image_BE,
            text_CE=text_CE,
            logits_BC=self.logits(image_BE, text_CE),
        )

    def confident_views(self, logits_VC: Tensor) -> Tensor:
        """The int(fraction * V) views of lowest prediction entropy, lowest first (M,).

        METHOD.md "Adapting to one image", 2. Equal entropies are ordered by the view's number.
        """
        n_views = len(logits_VC)
        n_chosen = int(self.settings.selection_fraction * n_views)
        if n_chosen < 1:
            raise ValueError(
                f"selection_fraction {self.settings.selection_fraction} chooses none of "
                f"{n_views} views"
            )
        ranks = [(entropy(logits_VC[v].softmax(-1)).item(), v) for v in range(n_views)]
        return torch.tensor([v for _, v in sorted(ranks)[:n_chosen]], device=self.device)

    def loss(self, logits_VC: Tensor, distances_VQR: Tensor, confident_views: Tensor) -> Tensor:
        """Entropy of the mean prediction plus the weighted distance term, a scalar.

        METHOD.md "Adapting to one image", 2; with the paper's distance_weight of -0.2 the
        distances are pushed up.
        """
        mean_C = logits_VC[confident_views].softmax(-1).mean(0)
        distance = distances_VQR.flatten(1).sum(1).mean()
        return entropy(mean_C) + self.settings.distance_weight * distance

    def _optimizer(self, parameters: list[Tensor]) -> AdamW | torch.optim.AdamW:
        return AdamW(parameters, self.settings)

    def adapt(self, views_VCHW: Tensor) -> ImageRecord:
        """Adapt to one image by its V views (V, 3, H, W), then predict from view 0.

        METHOD.md "Adapting to one image". Changes `self.bank` and `self.context_NT`.
        """
        self.context_NT = self.context_init_NT.clone().requires_grad_()
        parameters = [self.context_NT, self.bank.keys_KD, self.bank.prompts_KPD]
        optimizer = self._optimizer(parameters)
        passes: list[ForwardPass] = []
        losses: list[Tensor] = []
        contexts: list[Tensor] = []
        confident_views = torch.empty(0, dtype=torch.int64)
        for step in range(self.settings.steps):
            current = self.forward(views_VCHW, self.context_NT, adapting=True)
            if step == 0:
                confident_views = self.confident_views(current.logits_BC.detach())
            loss = self.loss(current.logits_BC, current.distances_BQR, confident_views)
            for parameter in parameters:
                parameter.grad = None
            torch.autograd.backward(loss)
            self.counts.image_backwards += len(views_VCHW)
            optimizer.step()
            passes.append(current)
            losses.append(loss.detach())
            contexts.append(self.context_NT.detach().clone())
        return ImageRecord(
            queries_QVD=passes[0].queries_BQD.transpose(0, 1).contiguous(),
            indices_SVQR=torch.stack([p.indices_BQR.flatten(1) for p in passes]),
            distances_SVQR=torch.stack([p.distances_BQR.detach().flatten(1) for p in passes]),
            logits_SVC=torch.stack([p.logits_BC.detach() for p in passes]),
            loss_S=torch.stack(losses),
            context_SNT=torch.stack(contexts),
            confident_views=confident_views,
            bank=self.bank.snapshot(),
            prediction=self.predict(views_VCHW[0]),
        )

    def predict(self, view_CHW: Tensor) -> Prediction:
        """Predict from one view (3, H, W) with plain distances and without counting usage.

        METHOD.md "Adapting to one image", 3; with the context and the bank as they are now.
        """
        with torch.no_grad():
            result = self.forward(view_CHW[None], self.context_NT, adapting=False)
        return Prediction(
            result.indices_BQR.flatten(), result.distances_BQR.flatten(), result.logits_BC[0]
        )


class PublishedLoop(PlainLoop):
    """The published loop as a baseline for benchmarks: batched, but without any saving."""

    def retrieve(self, queries_BQD: Tensor, *, adapting: bool) -> tuple[Tensor, Tensor]:
        """See `PlainLoop.retrieve`; METHOD.md 2."""
        keys_KD, usage_K = self.bank.keys_KD, self.bank.usage_K
        # Under autocast a product in bfloat16 would leave the choice to rounding.
        with torch.autocast(self.device.type, enabled=False):
            cosine_BQK = F.normalize(queries_BQD, dim=-1) @ F.normalize(keys_KD, dim=-1).T
        plain_BQK = 1 - cosine_BQK
        used_BQK = plain_BQK
        total = int(usage_K.sum())
        if adapting and 0 < total <= len(usage_K) * len(queries_BQD):
            used_BQK = plain_BQK * (usage_K.to(plain_BQK.dtype) / total)
        # Stable sorts by the second criterion, then by the first: order by (used, plain, number).
        order_BQK = plain_BQK.detach().argsort(dim=-1, stable=True)
        by_used_BQK = used_BQK.detach().gather(-1, order_BQK).argsort(dim=-1, stable=True)
        indices_BQR = order_BQK.gather(-1, by_used_BQK)[..., : self.settings.top_k]
        return indices_BQR, used_BQK.gather(-1, indices_BQR)

    def count_usage(self, indices_BQR: Tensor) -> None:
        """See `PlainLoop.count_usage`; METHOD.md 3."""
        self.bank.usage_K += indices_BQR.flatten().bincount(minlength=len(self.bank.usage_K))

    def assemble(self, indices_BQR: Tensor) -> Tensor:
        """See `PlainLoop.assemble`; METHOD.md 4."""
        return self.bank.prompts_KPD[indices_BQR.flatten(1)].mean(1)

    def _optimizer(self, parameters: list[Tensor]) -> AdamW | torch.optim.AdamW:
        settings = self.settings
        return torch.optim.AdamW(
            parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )


class AdamW:
    """AdamW (Loshchilov and Hutter, algorithm 2) written out, row by row, from a fresh state."""

    def __init__(self, parameters: Sequence[Tensor], settings: Settings) -> None:
        self.parameters = parameters
        self.settings = settings
        self.first = [torch.zeros_like(parameter) for parameter in parameters]
        self.second = [torch.zeros_like(parameter) for parameter in parameters]
        self.steps_done = 0

    @torch.no_grad()
    def step(self) -> None:
        """Update every row of every parameter, those with a gradient of zero included."""
        rate, (beta_1, beta_2) = self.settings.learning_rate, self.settings.betas
        self.steps_done += 1
        correction_1 = 1 - beta_1**self.steps_done
        correction_2 = 1 - beta_2**self.steps_done
        for number, parameter in enumerate(self.parameters):
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            for row in range(len(parameter)):
                first = beta_1 * self.first[number][row] + (1 - beta_1) * gradient[row]
                second = beta_2 * self.second[number][row] + (1 - beta_2) * gradient[row] ** 2
                self.first[number][row] = first
                self.second[number][row] = second
                parameter[row] *= 1 - rate * self.settings.weight_decay
                root = (second / correction_2).sqrt() + self.settings.eps
                parameter[row] -= rate * (first / correction_1) / root


def entropy(probabilities_C: Tensor) -> Tensor:
    """-sum p log p in nats, a scalar; 0 log 0 is 0."""
    terms_C: Tensor = torch.special.entr(probabilities_C)
    return terms_C.sum()


def record_stream(loop: PlainLoop, views_nVCHW: Tensor) -> dict[str, Tensor]:
    """Run `loop` over n images (n, V, 3, H, W); return its records under a trace's names.

    See METHOD.md, "The recordings in `traces/`", for names and shapes.
    """
    with torch.no_grad():
        text_CE = loop.encode_text(loop.context_init_NT)
        plain = [loop.encode_image(views_VCHW[:1])[1] for views_VCHW in views_nVCHW]
        zero_shot = [loop.logits(image_1E, text_CE)[0] for image_1E in plain]
    records = [loop.adapt(views_VCHW) for views_VCHW in views_nVCHW]
    predictions = [record.prediction for record in records]
    recorded: dict[str, list[Tensor]] = {
        "encode_image.plain": [image_1E[0] for image_1E in plain],
        "logits.zero_shot": zero_shot,
        "queries": [record.queries_QVD for record in records],
        "retrieved.indices": [record.indices_SVQR for record in records],
        "retrieved.distances": [record.distances_SVQR for record in records],
        "logits.steps": [record.logits_SVC for record in records],
        "loss": [record.loss_S for record in records],
        "ctx.after_step": [record.context_SNT for record in records],
        "confident_views": [record.confident_views for record in records],
        "bank.keys.after_image": [record.bank.keys_KD for record in records],
        "bank.prompts.after_image": [record.bank.prompts_KPD for record in records],
        "bank.usage.after_image": [record.bank.usage_K for record in records],
        "final.indices": [prediction.indices_QR for prediction in predictions],
        "final.distances": [prediction.distances_QR for prediction in predictions],
        "logits.final": [prediction.logits_C for prediction in predictions],
    }
    stacked = {name: torch.stack(values) for name, values in recorded.items()}
    return {"encode_text.init": text_CE, **stacked}
