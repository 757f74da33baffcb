"""Prompt templates by name; ``{}`` stands for the class name, ``{article}`` for "a" or "an" before it.

The figures behind the names are the CLIP authors' published prompts, as the evaluations of both papers use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wisepatch.datasets.names import names

_ADJECTIVES = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")


def _cifar() -> tuple[str, ...]:
    def with_article(article: str) -> list[str]:
        plain = [f"a {adjective}photo of {article} {{}}." for adjective in _ADJECTIVES]
        return [*plain, f"a photo of {article} small {{}}.", f"a photo of {article} big {{}}."]

    return (*with_article("a"), *with_article("the"))


def _fashion() -> tuple[str, ...]:
    kinds = ("photo", "blurry photo", "black and white photo", "thumbnail")
    return tuple(f"a {kind} of {article} {{}}." for article in ("a", "the") for kind in kinds)


def _aerial() -> tuple[str, ...]:
    views = ("satellite imagery", "aerial imagery", "satellite photo", "aerial photo", "satellite view", "aerial view")
    return tuple(f"{view} of {article}{{}}." for article in ("", "a ", "the ") for view in views)


_SIGNS = tuple(f'a {view} photo of a "{{}}" traffic sign.' for view in ("zoomed in", "centered", "close up"))

TEMPLATES: dict[str, tuple[str, ...]] = {
    "simple": ("a photo of a {}.",),
    "MNIST": ('a photo of the number: "{}".',),
    "SVHN": ('a photo of the number: "{}".',),
    "FashionMNIST": _fashion(),
    "CIFAR10": _cifar(),
    "CIFAR100": _cifar(),
    "STL10": ("a photo of a {}.", "a photo of the {}."),
    "SUN397": ("a photo of a {}.", "a photo of the {}."),
    "Cars": (
        *(f"a photo of {article} {{}}." for article in ("a", "the", "my")),
        "i love my {}!",
        *(f"a photo of my {state} {{}}." for state in ("dirty", "clean", "new", "old")),
    ),
    "DTD": tuple(
        f"a photo of {article} {{}} {noun}."
        for article in ("a", "the")
        for noun in ("texture", "pattern", "thing", "object")
    ),
    "EuroSAT": tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")),
    "Food101": ("a photo of {}, a type of food.",),
    "GTSRB": _SIGNS,
    "MTSD": _SIGNS,
    "KITTI": ("{}",),
    "RESISC45": _aerial(),
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
    from wisepatch.errors import UnknownNameError

    by_name = {name.lower(): texts for name, texts in TEMPLATES.items()}
    found: list[str] = []
    for name in asked:
        if "{}" in name or "{article}" in name:
            found.append(name)
        elif name.lower() in by_name:
            found.extend(by_name[name.lower()])
        else:
            raise UnknownNameError(
                "prompt template", name, TEMPLATES, "a template's text needs {} where the class name goes"
            )
    return tuple(found)


def prompts(class_name: str, texts: Sequence[str]) -> list[str]:
    """Fill every template with ``class_name``; only the two placeholders are replaced, other braces stay as they are."""
    article = "an" if class_name[:1].lower() in "aeiou" else "a"
    return [text.replace("{article}", article).replace("{}", class_name) for text in texts]
