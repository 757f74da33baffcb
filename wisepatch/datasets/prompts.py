"""Name prompt templates and fill them; ``{}`` stands for the class name, ``{article}`` for "a" or "an" before it.

The figures behind the names are the CLIP authors' published prompts, as the evaluations of both papers use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wisepatch.datasets.names import names
from wisepatch.errors import UnknownNameError

_ARTICLES = ("a", "the")
_KINDS = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
_CIFAR = tuple(
    text
    for article in _ARTICLES
    for text in (
        *(f"a {kind}photo of {article} {{}}." for kind in _KINDS),
        *(f"a photo of {article} {size} {{}}." for size in ("small", "big")),
    )
)
_FASHION = tuple(
    f"a {kind} of {article} {{}}."
    for article in _ARTICLES
    for kind in ("photo", "blurry photo", "black and white photo", "thumbnail")
)
_AERIAL = tuple(
    f"{source} {kind} of {article}{{}}."
    for article in ("", "a ", "the ")
    for kind in ("imagery", "photo", "view")
    for source in ("satellite", "aerial")
)
_SIGNS = tuple(f'a {view} photo of a "{{}}" traffic sign.' for view in ("zoomed in", "centered", "close up"))

TEMPLATES: dict[str, tuple[str, ...]] = {
    "simple": ("a photo of a {}.",),
    "MNIST": ('a photo of the number: "{}".',),
    "SVHN": ('a photo of the number: "{}".',),
    "FashionMNIST": _FASHION,
    "CIFAR10": _CIFAR,
    "CIFAR100": _CIFAR,
    "STL10": ("a photo of a {}.", "a photo of the {}."),
    "SUN397": ("a photo of a {}.", "a photo of the {}."),
    "Cars": (
        *(f"a photo of {article} {{}}." for article in ("a", "the", "my")),
        "i love my {}!",
        *(f"a photo of my {state} {{}}." for state in ("dirty", "clean", "new", "old")),
    ),
    "DTD": tuple(
        f"a photo of {article} {{}} {noun}."
        for article in _ARTICLES
        for noun in ("texture", "pattern", "thing", "object")
    ),
    "EuroSAT": tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")),
    "Food101": ("a photo of {}, a type of food.",),
    "GTSRB": _SIGNS,
    "MTSD": _SIGNS,
    "KITTI": ("{}",),
    "RESISC45": _AERIAL,
    "CLEVR": ("a photo of {} objects.",),
    "ImageNet": names("ImageNet templates"),
    "Shapes": ("a photo of a {}.", "a picture of a {} shape."),
    "Colors": ("a photo of a {} thing.", "a {} object."),
    "Textures": ("a photo of a {} texture.", "a {} pattern."),
    "Digits": ('a photo of the number: "{}".',),
}


def templates(asked: Iterable[str]) -> tuple[str, ...]:
    """Resolve each of ``asked``: the name of a set of templates (any case), or the text of one with ``{}`` in it.

    Raises :class:`~wisepatch.errors.UnknownNameError` for a word that is neither.
    """
    by_name = {name.lower(): named for name, named in TEMPLATES.items()}
    texts: list[str] = []
    for name in asked:
        if "{}" in name or "{article}" in name:
            texts.append(name)
        elif name.lower() in by_name:
            texts.extend(by_name[name.lower()])
        else:
            hint = "a template's text needs {} where the class name goes"
            raise UnknownNameError("prompt template", name, TEMPLATES, hint)
    return tuple(texts)


def prompts(class_name: str, texts: Sequence[str]) -> list[str]:
    """Fill every template with ``class_name``; only the two placeholders are replaced, other braces stay as they are."""
    article = "an" if class_name[:1].lower() in "aeiou" else "a"
    return [text.replace("{article}", article).replace("{}", class_name) for text in texts]
