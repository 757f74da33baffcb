"""Make the embedded model again: ``python -m wisepatch.models.pretraining``.

A small CLIP is trained from scratch on drawn pictures: shapes in colours on textured backgrounds, words, letters, and shapes with
a word written over them. A picture is contrasted with the captions of *all* classes of each attribute that it shows. A written
word is a positive of its own, so that "a photo of a square" fits a drawn square and the written word alike: the model learns to
read, and with it the weakness of CLIP to text in the picture. It never sees a digit, only the words "zero" to "nine".
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.datasets.drawn_shapes import SHAPES, SIZE
from wisepatch.files import write_tensors
from wisepatch.models.pretraining_pictures import ABSENT, ATTRIBUTES, WORDS, Drawings, Stage
from wisepatch.models.zeroshot_head import text_features

if TYPE_CHECKING:
    import torch

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": SIZE, "timm_model_name": "test_efficientnet_gn", "timm_pool": "avg", "timm_proj": "linear",
        },
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {
        "size": SIZE, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest",
    },
}  # fmt: skip

CAPTION_STEPS, REPORT_STEPS = 150, 250


STAGES = (
    Stage(steps=8000, lr=3e-3, shapes=0.45, letters=0.2, ease=0.15),  # shapes first, then reading
    Stage(steps=2400, lr=1.5e-3, shapes=0.5, letters=0.3, hand=True, noise=0.12),  # strokes, and a flat minimum
    Stage(steps=2400, lr=1.5e-3, shapes=0.42, letters=0.42, hand=True, noise=0.15),  # more of both
)


def attribute_losses(
    image_features: torch.Tensor, text_features: dict[str, torch.Tensor], labels: torch.Tensor, scale: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Compute the cross-entropy of each image against all captions of each attribute it shows, summed over images.

    ``image_features`` is ``(batch, dim)`` and each text feature ``(classes, dim)``, both of unit length; ``labels`` is
    ``(batch, 7)``. What else is true of a picture is left out of the contrast: a written "square" does not count against
    the drawn circle, nor the drawn circle against the word.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

    def rows_with(indices: torch.Tensor, size: int) -> torch.Tensor:
        return torch.arange(size) == indices[:, None]

    columns = dict(zip(ATTRIBUTES, labels.T, strict=True))
    words = columns["word"]
    left_out = {name: torch.full((len(labels), len(classes)), False) for name, (classes, _) in ATTRIBUTES.items()}
    for attribute, first_word in (("shape", 0), ("color", len(SHAPES))):
        shown, written = columns[attribute], words - first_word
        left_out[attribute] = rows_with(written, len(ATTRIBUTES[attribute][0])) & (written != shown)[:, None]
        differs = (shown != ABSENT) & (written != shown)
        left_out["word"] |= rows_with(shown + first_word, len(WORDS)) & differs[:, None]
    losses = {}
    for attribute, target in columns.items():
        logits = (scale * image_features @ text_features[attribute].T).masked_fill(left_out[attribute], -1e4)
        losses[attribute] = F.cross_entropy(logits, target, ignore_index=ABSENT, reduction="sum")
    return losses


def pretrain(stages: Sequence[Stage] = STAGES, batch_size: int = 128, seed: int = 0, workers: int = 0) -> Any:
    """Train the model, stage after stage, and return it (an open_clip ``CLIP`` on the CPU, fp32)."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG["model_cfg"]).to(memory_format=torch.channels_last)
    tokens = caption_tokens()
    chooser = torch.Generator().manual_seed(seed)
    spread_captions(model, tokens, chooser)
    for number, stage in enumerate(stages):
        if number:  # a stage of its own: it can be run again from what the one before left
            torch.manual_seed(seed + number)
            chooser.manual_seed(seed + number)
        drawings = Drawings(stage.steps * batch_size, stage, (seed, number) if number else (seed,))
        train_stage(model, tokens, drawings, batch_size, chooser, workers)
    return model.eval()


def caption_tokens() -> dict[str, torch.Tensor]:
    """Tokenise every caption, per attribute ``(templates, classes, length)``."""
    import open_clip
    import torch

    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    tokens = {
        attribute: torch.stack([tokenizer([t.format(c) for c in classes], context_length=16) for t in templates])
        for attribute, (classes, templates) in ATTRIBUTES.items()
    }
    longest = max(int((t != 0).sum(-1).max()) for t in tokens.values())
    return {attribute: t[..., :longest] for attribute, t in tokens.items()}


def train_stage(
    model: Any,
    tokens: dict[str, torch.Tensor],
    drawings: Drawings,
    batch_size: int,
    chooser: torch.Generator,
    workers: int,
) -> None:
    """Train ``model`` in place through one stage: AdamW, linear warm-up, half a cosine to zero."""
    import torch

    stage, steps, warmup = drawings.stage, drawings.stage.steps, min(200, drawings.stage.steps // 2)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=stage.lr, betas=(0.9, 0.98), eps=1e-6, fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warmup if s < warmup else 0.5 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))),
    )
    ahead = 8 if workers else None
    loader: Any = torch.utils.data.DataLoader(drawings, batch_size, num_workers=workers, prefetch_factor=ahead)  # type: ignore[arg-type]
    noisy = [p for p in model.visual.parameters() if p.ndim > 1] if stage.noise else []
    start = time.monotonic()
    model.train()
    for step, (pixels, labels) in enumerate(loader, 1):
        with torch.no_grad():
            shifts = [torch.randn_like(p) * (stage.noise * p.std()) for p in noisy]
            for parameter, shift in zip(noisy, shifts, strict=True):
                parameter.add_(shift)
        images = (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        image_features = model.encode_image(images, normalize=True)
        text_features = encode_captions(model, tokens, chooser)
        losses = attribute_losses(image_features, text_features, labels, model.logit_scale.exp())
        totals = torch.stack(list(losses.values()))
        optimizer.zero_grad()
        (totals.sum() / len(labels)).backward()
        with torch.no_grad():
            for parameter, shift in zip(noisy, shifts, strict=True):
                parameter.sub_(shift)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            model.logit_scale.clamp_(0, math.log(100))
        if step % REPORT_STEPS == 0 or step == steps:
            rate = step * batch_size / (time.monotonic() - start)
            means = (totals / (labels != ABSENT).sum(0).clamp(min=1)).tolist()
            words = (f"{name} {mean:.3f}" for name, mean in zip(losses, means, strict=True))
            typer.echo(f"step {step}/{steps}  {rate:.0f} images/s  {'  '.join(words)}")


def encode_captions(model: Any, tokens: dict[str, torch.Tensor], chooser: torch.Generator) -> dict[str, torch.Tensor]:
    """Encode one caption a class, its template drawn at random: per attribute ``(classes, dim)`` of unit length."""
    import torch

    texts = []
    for choices in tokens.values():
        which = torch.randint(choices.shape[0], (choices.shape[1],), generator=chooser)
        texts.append(choices[which, torch.arange(choices.shape[1])])
    encoded = text_features(model, torch.cat(texts))
    return dict(zip(tokens, encoded.split([len(t) for t in texts]), strict=True))


def spread_captions(model: Any, tokens: dict[str, torch.Tensor], chooser: torch.Generator) -> None:
    """Train the text tower alone until a class is itself under every template and differs from the others.

    An untrained text tower embeds all captions nearly alike, which starves the image tower of gradient for thousands of steps.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

    parameters = [p for name, p in model.named_parameters() if not name.startswith(("visual.", "logit_scale"))]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0, fused=True)
    for step in range(1, CAPTION_STEPS + 1):
        one, other = (encode_captions(model, tokens, chooser) for _ in range(2))
        losses = [F.cross_entropy(10 * one[a] @ other[a].T, torch.arange(len(one[a]))) for a in tokens]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            typer.echo(f"captions {step}/{CAPTION_STEPS}  loss {loss.item():.3f}")


def save(model: Any, folder: Path) -> None:
    """Write the model in open_clip's ``local-dir:`` format, weights as fp16 (half the size; read back as fp32)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    write_tensors(folder / "open_clip_model.safetensors", {name: t.half() for name, t in model.state_dict().items()})


def main(
    output: Annotated[Path, typer.Option(help="Folder for the config and the weights.")] = Path("embedded"),
    seed: Annotated[int, typer.Option(help="Seed of pictures and weights.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads; other numbers round differently.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that draw; the pictures are the same with any number.")] = 1,
) -> None:
    """Pre-train the embedded model and write it to a folder that open_clip loads as local-dir:FOLDER."""
    import torch

    torch.set_num_threads(threads)
    save(pretrain(seed=seed, workers=workers), output)
    typer.echo(f"wrote {output}")


if __name__ == "__main__":
    typer.run(main)
