"""The model card of an exported checkpoint: what it is, how it was made and measured, how to load it and make it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wisepatch.config import DEMO, ModelConfig
from wisepatch.counting import count
from wisepatch.reports.checkpoint_tables import ancestors
from wisepatch.reports.evidence import KEY, Evidence
from wisepatch.reports.making_again import commands, public
from wisepatch.store.checkpoints import Checkpoint, Store

CARD, PICTURE = "README.md", "sweep.png"
MAX_CLASSES = 12  # that the card names; the files beside it have all
PAPERS = {name: f"[arXiv {name}](https://arxiv.org/abs/{name})" for name in ("2208.05592", "2109.01903")}
TRAININGS = {
    "paint": f"PAINT ({PAPERS['2208.05592']}): the image encoder was fine-tuned against a frozen head from text",
    "wise-ft": f"WiSE-FT ({PAPERS['2109.01903']}): image encoder and zero-shot head were fine-tuned end to end",
    "linear-probe": f"WiSE-FT's linear classifier ({PAPERS['2109.01903']}): the head alone was trained",
}
STRATEGIES = {
    "joint": "joint: the tasks were patched together, in one training",
    "sequential": "sequential: the tasks were patched one after the other, each from the model patched before",
    "parallel": "parallel: each task was trained from the same start, and the task vectors are added",
}
LOADING = {
    "open_clip": """\
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("{schema}:{place}")
tokenizer = open_clip.get_tokenizer("{schema}:{place}")
""",
    "transformers": """\
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

model, processor = CLIPModel.from_pretrained("{place}").eval(), CLIPProcessor.from_pretrained("{place}")
texts, image = ["a photo of a cat.", "a photo of a dog."], Image.open("photo.jpg")
print(model(**processor(text=texts, images=image, return_tensors="pt", padding=True)).logits_per_image.softmax(-1))
""",
    "classifier": """\
import json, pathlib, open_clip, torch
from PIL import Image
from safetensors.torch import load_file

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{place}")
head, about = load_file("{place}/classifier.safetensors"), json.loads(pathlib.Path("{place}/classifier.json").read_text())
with torch.inference_mode():
    features = model.eval().encode_image(preprocess(Image.open("photo.jpg"))[None], normalize=True)
    probabilities = (features @ head["classifier.weight"].T + head["classifier.bias"]).softmax(-1)[0]
for index in probabilities.argsort(descending=True)[:5].tolist():
    print(about["classes"][index], round(probabilities[index].item(), 4))
""",
}  # fmt: skip


def model_card(
    store: Store,
    checkpoint: Checkpoint,
    kind: str,
    place: str,
    files: Mapping[str, str],
    found: Evidence,
    *,
    base: str,
    head: Mapping[str, Any] | None,
    picture: bool,
    hub: bool,
) -> str:
    """Write the card in Markdown.

    ``place`` is the folder's name, or the repository's on the ``hub``; ``base`` names the published model there, or is empty.
    """
    sections = [
        _front_matter(checkpoint, kind, base),
        f"# {place.rpartition('/')[2]}",
        _summary(checkpoint),
        f"## What it is\n\n{_facts(checkpoint, found, head, base)}",
        f"## What was measured\n\n{_measured(store, checkpoint, found)}",
        *([f"![Accuracy on what was patched over that on the supported tasks]({PICTURE})"] if picture else []),
        f"## How to load it\n\n{_loading(kind, place, hub=hub, head=head)}",
        f"## Where it comes from\n\n{_lineage(store, checkpoint, files)}",
        f"## How to make it again\n\n{commands(store, checkpoint, found, kind)}",
        "## Licence\n\nNone is stated here: who publishes this model names one that those of the base model and the data allow.",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(checkpoint: Checkpoint, kind: str, base: str) -> str:
    classifies = kind == "classifier"
    lines = [
        f"library_name: {'transformers' if kind == 'transformers' else 'open_clip'}",
        f"pipeline_tag: {'' if classifies else 'zero-shot-'}image-classification",
        *([f"base_model: {base}"] if base else []),
        "tags:",
        *(
            f"- {tag}"
            for tag in ("clip", "wisepatch", *([checkpoint.training] if checkpoint.training in TRAININGS else []))
        ),
    ]
    return "\n".join(["---", *lines, "---"])


def _summary(checkpoint: Checkpoint) -> str:
    task = _tasks(checkpoint)
    verb = "fine-tuned" if checkpoint.kind == "finetuned" else "patched"
    patched = f", {verb} on {task}" if task and checkpoint.kind != "zeroshot" else ""
    if checkpoint.kind == "merged":
        return (
            f"{_model(checkpoint)}{patched}: several fine-tuned models, merged by {checkpoint.method} with wisepatch."
        )
    if checkpoint.recipe:
        return f"{_model(checkpoint)}{patched}: the weights from before and after a fine-tuning, mixed by wisepatch."
    return f"{_model(checkpoint)}{patched}, written by wisepatch."


def _tasks(checkpoint: Checkpoint) -> str:
    """Name what a checkpoint was trained or patched on."""
    config = checkpoint.config
    return ", ".join(map(public, config.get("tasks") or ([config["task"]] if "task" in config else [])))


def _model(checkpoint: Checkpoint) -> str:
    model = ModelConfig.from_json(checkpoint.model)
    if model.model.lower() == DEMO:
        return "the embedded model of wisepatch (demo)"
    return " ".join(filter(None, (public(model.model), model.pretrained and f"({Path(model.pretrained).name})")))


def _facts(checkpoint: Checkpoint, found: Evidence, head: Mapping[str, Any] | None, base: str) -> str:
    config = checkpoint.config
    supported = ", ".join(map(public, config.get("supported") or ()))
    facts = {
        "base model": f"{_model(checkpoint)}{f', {base}' if base else ''}",
        "task": _tasks(checkpoint),
        "supported tasks": supported and f"{supported}: they were not to get worse",
        "training": TRAININGS.get(checkpoint.training, ""),
        "strategy": STRATEGIES.get(config.get("strategy", ""), ""),
        "mix": _mix(checkpoint),
        **_choice(checkpoint, found),
        "head": head and f"{_classes(head['classes'])}{'' if head.get('templates') is None else ', from text'}",
        "checkpoint": f"{checkpoint.name} ({checkpoint.id})",
        "made with": ", ".join(f"{name} {version}" for name, version in checkpoint.versions.items()),
    }
    return "\n".join(f"- **{name}**: {value}" for name, value in facts.items() if value)


def _classes(classes: Iterable[str]) -> str:
    names = list(classes)
    rest = f", and {len(names) - MAX_CLASSES} more" if len(names) > MAX_CLASSES else ""
    return f"{count(len(names), 'class', 'classes')}: {', '.join(names[:MAX_CLASSES])}{rest}"


def _mix(checkpoint: Checkpoint) -> str:
    if checkpoint.recipe is None:
        return ""
    if checkpoint.method == "linear":
        return "`theta = (1 - alpha) * theta_0 + alpha * theta_1`, theta_0 from before the fine-tuning, theta_1 from after it"
    hidden = ("fisher", "gram") if checkpoint.kind == "merged" else ("alpha", "fisher", "gram")
    known = {name: value for name, value in checkpoint.recipe.params.items() if name not in hidden}
    return f"{checkpoint.method}{f' {json.dumps(known)}' if known else ''}"


def _choice(checkpoint: Checkpoint, found: Evidence) -> dict[str, str]:
    """Tell alpha or coefficients, and how they, or the parameters of a merge, were chosen: by which rule on which data."""
    config, rule, how = checkpoint.config, checkpoint.config.get("select"), "given by hand"
    if rule and checkpoint.kind in ("patched", "merged"):
        data = (
            "validation data" if config.get("select_on") == "val" else "TEST DATA, so that figures of it are too good"
        )
        how = f"chosen by the rule {rule} on {data}{_among(checkpoint, found)}"
    if coefficients := config.get("coefficients"):
        return {
            "coefficients": f"{', '.join(f'{each:g} ({public(task)})' for task, each in coefficients.items())}, {how}"
        }
    if checkpoint.kind == "merged":
        return {"parameters": how}
    return {} if checkpoint.alpha is None else {"alpha": f"{checkpoint.alpha:g}, {how}"}


def _among(checkpoint: Checkpoint, found: Evidence) -> str:
    """Tell how many a rule chose from, where the results say it."""
    columns = [found.sweep[name].dropna() for name in ("candidate", "alpha") if name in found.sweep]
    values = next((column for column in columns if len(column)), None)
    if values is None:
        return ""
    if checkpoint.kind == "merged":
        merges = values[values > 0].nunique()  # number 0 is the start
        return f" among {merges} merges" if merges > 1 else ""
    return f" among {values.nunique()} values"


def _measured(store: Store, checkpoint: Checkpoint, found: Evidence) -> str:
    """Write a table, a row for each task, with the zero-shot model and the fine-tuned end of a line beside it."""
    if not found.rows:
        return "Nothing was measured of these weights."
    beside = _models_beside(store, checkpoint)
    header = ["task", "split", "metric", "this model", *beside, "n"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in found.rows:
        same = found.results[(found.results[[*KEY, "n"]] == [row[name] for name in (*KEY, "n")]).all(axis=1)]
        of_others = [same[same["checkpoint"] == identity] for identity in beside.values()]
        cells = [
            public(row["task"]).replace("|", "\\|"), row["split"], row["metric"], f"**{_value(row)}**",
            *(_value(dict(rows.iloc[-1])) if len(rows) else "-" for rows in of_others),
            "-" if row["n"] != row["n"] else f"{row['n']:g}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    after = " Test data was looked at after the choice." if checkpoint.config.get("select_on") == "val" else ""
    return "\n".join([*lines, "", f"Per cent, with 95 % intervals.{after}"])


def _models_beside(store: Store, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the ids of the zero-shot model that a mix began with, and of the one end that it has; none for what is no mix."""
    if checkpoint.recipe is None:
        return {}
    lineage = [each for each in ancestors(store, checkpoint) if not isinstance(each, str)]
    starts = [each.id for each in lineage if each.kind in ("zeroshot", "start")]
    ends = [each.id for each in lineage if each.kind == "finetuned" and each.id in checkpoint.recipe.parents]
    return {**({"zero-shot": starts[0]} if starts else {}), **({"fine-tuned": ends[0]} if len(ends) == 1 else {})}


def _value(row: Mapping[str, Any]) -> str:
    low, high = row["ci_low"], row["ci_high"]
    interval = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None and low == low else ""
    return f"{100 * row['value']:.1f}{interval}"


def _loading(kind: str, place: str, *, hub: bool, head: Mapping[str, Any] | None) -> str:
    if hub and kind == "classifier":  # its head is a file beside the model
        name = place.rpartition("/")[2]
        code = LOADING[kind].format(place=name)
        code = f'from huggingface_hub import snapshot_download\n\nsnapshot_download("{place}", local_dir="{name}")\n\n{code}'
    else:
        code = LOADING[kind].format(schema="hf-hub" if hub else "local-dir", place=place)
    text = f"```python\n{code}```"
    if head and kind != "classifier":
        text += (
            "\n\nThe trained head is beside it: `classifier.safetensors` (`classifier.weight` and `classifier.bias`, over image "
            "features of unit length), its class names in `classifier.json`."
        )
    return text


def _lineage(store: Store, checkpoint: Checkpoint, files: Mapping[str, str]) -> str:
    lines = ["| file | sha256 |", "|---|---|", *(f"| {name} | `{digest}` |" for name, digest in files.items()), ""]
    lines += ["| made from | id | what it is | sha256 of its weights |", "|---|---|---|---|"]
    for each in (checkpoint, *ancestors(store, checkpoint)):
        if isinstance(each, str):
            lines.append(f"| (removed) | {each} | | |")
            continue
        recipe = f"{each.method} mix of {', '.join(each.parents)}" if each.recipe else each.kind
        alpha = "" if each.alpha is None else f", alpha {each.alpha:g}"
        if source := None if each.recipe else each.config.get("imported"):
            alpha = f", imported from {source['from']} (`{source['sha256']}`)"
        digest = f"`{', '.join(each.files.values())}`" if each.files else "a recipe"
        lines.append(f"| {each.name} | {each.id} | {recipe}{alpha} | {digest} |")
    return "\n".join(lines)
