"""Each kind of picture against one that was looked at, pixel by pixel within a tolerance.

After a change that is meant: pytest tests/reports/test_baselines.py --mpl-generate-path=tests/reports/baseline, and look at them.
"""

from pathlib import Path

import matplotlib
import pytest

from tests.reports.plots.pictures import KINDS, LOOKS, drawn, picture

BASELINES = Path(__file__).parent / "baseline"
DPI = 60
# matplotlib 3.10 sets letters elsewhere than 3.11, by more than what a missing curve makes; 3.11.0 and 3.11.2 differ by 0.02.
MADE_WITH = "3.11"
TOLERANCE = 3.0  # of the root of the mean squared difference of grey levels; marks that are missing make 5
SMALL_PNG_BYTES = 80_000
DRAWN = [(kind, "light") for kind in KINDS] + [("frontier", "dark"), ("robustness", "paper")]


def name_of(kind, look):
    return f"{kind}-{look}"


def as_it_was(kind, look):
    return pytest.param(
        kind,
        look,
        id=name_of(kind, look),
        marks=pytest.mark.mpl_image_compare(
            baseline_dir=str(BASELINES), filename=f"{name_of(kind, look)}.png", tolerance=TOLERANCE, style="default",
            savefig_kwargs={"dpi": DPI},
        ),
    )  # fmt: skip


def skip_with_another_matplotlib():
    if not matplotlib.__version__.startswith(f"{MADE_WITH}."):
        pytest.skip(f"the baselines were drawn by matplotlib {MADE_WITH}, and this is {matplotlib.__version__}")


@pytest.mark.parametrize(("kind", "look"), [as_it_was(*each) for each in DRAWN])
def test_a_picture_is_as_it_was(kind, look):
    skip_with_another_matplotlib()
    return drawn(kind) if look == "light" else picture(kind, LOOKS[look])


def test_pictures_are_compared_unless_one_asks_for_something_else(request):
    assert request.config.getoption("--mpl"), "pytest compares pictures only with --mpl, which pyproject.toml gives"


def test_each_picture_has_its_baseline_and_they_are_small():
    assert {path.stem for path in BASELINES.glob("*.png")} == {name_of(*each) for each in DRAWN}
    assert {kind for kind, _ in DRAWN} == set(KINDS)
    assert all(path.stat().st_size < SMALL_PNG_BYTES for path in BASELINES.glob("*.png"))


@pytest.mark.parametrize("change", ["curve", "marks", "title"])
def test_a_picture_that_lost_something_is_not_as_it_was(tmp_path, change):
    from matplotlib.testing.compare import compare_images

    skip_with_another_matplotlib()
    figure = picture("frontier")
    axes = figure.axes[0]
    if change == "curve":
        max(axes.lines, key=lambda line: len(line.get_xydata())).remove()
    elif change == "marks":
        for line in [line for line in axes.lines if line.get_marker() in "os*+"]:
            line.remove()
    else:
        for text in [*figure.texts, *axes.texts]:
            text.remove()
    figure.savefig(tmp_path / "changed.png", dpi=DPI)
    expected = tmp_path / "expected.png"
    expected.write_bytes((BASELINES / "frontier-light.png").read_bytes())
    assert compare_images(expected, tmp_path / "changed.png", tol=TOLERANCE) is not None
