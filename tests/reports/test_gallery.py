"""The gallery has a row for each kind of picture that the command line draws."""

import re
from typing import get_args

import pytest

from tests.reports.gallery import make_gallery
from tests.reports.plots.pictures import KINDS, LOOKS
from wisepatch.cli.plot import Kind
from wisepatch.cli.plot_kinds import DRAW
from wisepatch.cli.plot_options import ALIASES, TAKES


def test_each_kind_of_the_command_line_has_a_row():
    assert {kind.partition("-")[0] if kind != "per-task" else kind for kind in KINDS} == set(DRAW)
    assert set(get_args(Kind)) == set(DRAW) | set(ALIASES)
    assert set(TAKES) == set(DRAW)


def test_a_gallery_is_a_page_of_pictures(tmp_path):
    page = make_gallery(tmp_path, ("training", "confusion"), ("light", "dark"))
    names = re.findall(r'src="([^"]+)"', page.read_text())
    assert names == ["training-light.png", "training-dark.png", "confusion-light.png", "confusion-dark.png"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)


@pytest.mark.slow
def test_the_whole_gallery_is_drawn(tmp_path):
    page = make_gallery(tmp_path)
    assert page.read_text().count("<img") == len(KINDS) * len(LOOKS)
