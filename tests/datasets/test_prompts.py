"""Prompt templates and how they are filled."""

import pytest

from tests.datasets.published.layouts import BENCHMARKS
from wisepatch.datasets.prompts import TEMPLATES, prompts, templates
from wisepatch.errors import UnknownNameError


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS["templates"]) - {"FMoW", "iWildCam"}))  # those are a plugin's
def test_templates_are_those_of_the_papers_evaluations(name):
    assert list(TEMPLATES[name]) == BENCHMARKS["templates"][name]


def test_prompts_fill_names_and_articles_and_keep_other_braces():
    assert prompts("owl", ["{article} {}", "{x} {}"]) == ["an owl", "{x} owl"]
    assert templates(["stl10", "my {}"]) == ("a photo of a {}.", "a photo of the {}.", "my {}")
    with pytest.raises(UnknownNameError, match="unknown prompt template 'STL'; did you mean STL10"):
        templates(["STL"])
