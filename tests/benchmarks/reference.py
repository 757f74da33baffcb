"""The papers' way, written afresh after what their code does (mlfoundations/wise-ft and mlfoundations/patching).

Models are whole modules, pickled with ``torch.save`` (theirs: ``pickle.dump`` of the module, which is slower). A sweep loads
the two ends once; for each alpha it mixes all weights into a new dict, loads that into the module, saves the module, and
evaluates it on each dataset with a data loader of its own, in fp32. A head is built a class at a time from prompts padded to
77 tokens. The text tower is dropped from image encoders, as theirs is. Each saved mix but the last is removed to spare the disk.
"""

import math
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder

BATCH = 128  # published default
WORKERS = 32  # of wise-ft's data loaders; patching's have 16


class ImageEncoder(torch.nn.Module):
    """A CLIP without its text tower, and its preprocessing."""

    def __init__(self, model, preprocess):
        super().__init__()
        self.model, self.val_preprocess, self.cache_dir = model, preprocess, None
        for name in ("transformer", "text"):
            if hasattr(model, name):
                delattr(model, name)

    def forward(self, images):
        return self.model.encode_image(images)


class ClassificationHead(torch.nn.Linear):
    """A linear layer on features of unit length."""

    def __init__(self, weight, bias=None):
        super().__init__(weight.shape[1], weight.shape[0])
        self.weight = torch.nn.Parameter(weight.clone())
        self.bias = torch.nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.clone())

    def forward(self, features):
        return super().forward(features / features.norm(dim=-1, keepdim=True))


class ImageClassifier(torch.nn.Module):
    """Encoder and head."""

    def __init__(self, image_encoder, classification_head):
        super().__init__()
        self.image_encoder, self.classification_head = image_encoder, classification_head
        self.val_preprocess = image_encoder.val_preprocess

    def forward(self, images):
        return self.classification_head(self.image_encoder(images))


def save(module, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(module.cpu(), path)


def load(path):
    return torch.load(path, weights_only=False)


def mixed(theta_0, theta_1, alpha):
    return {key: (1 - alpha) * theta_0[key] + alpha * theta_1[key] for key in theta_0}


def sweep(zeroshot, finetuned, tasks, alphas, out, *, workers=WORKERS, freeze_encoder=False, half=False):
    """The predictions ``{task: (alphas, n)}`` of all mixes; one set of classes, as in WiSE-FT."""
    start, model = load(zeroshot), load(finetuned)
    theta_0 = {key: value.clone() for key, value in start.state_dict().items()}
    theta_1 = {key: value.clone() for key, value in model.state_dict().items()}
    del start
    assert set(theta_0) == set(theta_1)
    said = {task: [] for task in tasks}
    saved = None
    for alpha in alphas:
        model.load_state_dict(mixed(theta_0, theta_1, alpha))
        if saved:
            saved.unlink()
        saved = Path(out) / f"wise_ft_alpha={alpha:.3f}.pt"
        save(model, saved)
        for task in tasks:
            said[task].append(evaluate(model, task, workers=workers, freeze_encoder=freeze_encoder, half=half))
    return {task: torch.stack(found).numpy() for task, found in said.items()}


@torch.no_grad()
def evaluate(classifier, task, *, workers, freeze_encoder=False, half=False):
    """What a model says of a folder of images, or with ``freeze_encoder`` its head of the folder's cached features.

    ``half`` computes in bf16 by autocast, which the papers' code does not do.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = ImageFolder(Path(task) / "test", transform=classifier.val_preprocess)
    model = classifier.classification_head if freeze_encoder else classifier
    if freeze_encoder:
        loader = DataLoader(Features(classifier.image_encoder, images, device, workers), batch_size=BATCH)
    else:
        loader = DataLoader(images, batch_size=BATCH, num_workers=workers)
    model.eval().to(device)
    said, correct, n = [], 0.0, 0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            predicted = model(inputs).argmax(dim=1)
        correct += predicted.eq(labels).sum().item()
        n += len(labels)
        said.append(predicted.cpu())
    return torch.cat(said)


class Features(Dataset):
    """Features of a dataset from files in the encoder's cache folder, which are made if they are not there."""

    def __init__(self, clip, images, device, workers):
        folder = Path(clip.cache_dir) / Path(images.root).parent.name
        if not (folder / "features.pt").is_file():
            folder.mkdir(parents=True)
            clip.eval().to(device)
            batches = DataLoader(images, batch_size=BATCH, num_workers=workers)
            found = [(clip(inputs.to(device)).cpu(), labels) for inputs, labels in batches]
            for name, parts in zip(("features", "labels"), zip(*found, strict=True), strict=True):
                torch.save(torch.cat(parts), folder / f"{name}.pt")
        self.features, self.labels = (torch.load(folder / f"{name}.pt") for name in ("features", "labels"))

    def __len__(self):
        return len(self.features)

    def __getitem__(self, index):
        return self.features[index], self.labels[index]


@torch.no_grad()
def zeroshot_head(model, tokenizer, classes, templates, fill):
    """The head ``(classes, dim)``, a class at a time; ``fill(template, name)`` is a prompt."""
    model.eval()
    rows, device = [], model.logit_scale.device
    for name in classes:
        texts = tokenizer([fill(template, name) for template in templates]).to(device)
        embeddings = model.encode_text(texts)
        embeddings /= embeddings.norm(dim=-1, keepdim=True)
        mean = embeddings.mean(dim=0, keepdim=True)
        mean /= mean.norm()
        rows.append(mean)
    return (torch.cat(rows) * model.logit_scale.exp()).float()


def finetune(classifier, images, steps, *, lr, wd, batch_size, workers, warmup, stepped, half=False):
    """PAINT's loop: the head frozen, AdamW, cosine with warm-up, clipping at 1; ``stepped()`` is called after each step.

    ``half`` computes in bf16 by autocast, which the published code does not do.

    Returns the losses. They are read every 100 steps, as published.
    """
    head = classifier.classification_head
    head.requires_grad_(False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier.train().to(device)
    loader = DataLoader(images, batch_size=batch_size, shuffle=True, num_workers=workers)
    loss_fn = torch.nn.CrossEntropyLoss()
    params = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=wd)
    step, losses = 0, []
    while step < steps:
        for batch in loader:
            inputs, labels = (part.to(device) for part in batch)
            for group in optimizer.param_groups:
                past = (step - warmup) / (steps - warmup)
                group["lr"] = lr * ((step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * past)))
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = loss_fn(classifier(inputs), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            if step % 100 == 0:
                loss.item()
            losses.append(loss.detach())
            step += 1
            stepped()
            if step == steps:
                break
    return torch.stack(losses).tolist()
