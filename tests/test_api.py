"""The public API: lazy, sorted, typed, documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import wisepatch as wp

ROOT = Path(wp.__file__).parent


def test_all_is_sorted_and_every_name_is_there():
    assert wp.__all__ == sorted(wp.__all__)
    assert dir(wp) == wp.__all__
    for name in wp.__all__:
        assert getattr(wp, name) is not None


def test_names_for_type_checkers_are_the_names_that_are_there():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {alias.asname or alias.name for n in block.body for alias in n.names}
    assert typed | {"__version__"} == set(wp.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'patsch'"):
        _ = wp.patsch


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Encoder", "Clip"),
        ("FinetuneConfig", "TrainConfig"),
        ("load_encoder", "load_clip"),
        ("predict", "predict_many"),
    ],
)
def test_names_of_the_last_release_are_aliases_that_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"wisepatch.{old} is now called wisepatch.{new}") as caught:
        assert getattr(wp, old) is getattr(wp, new)
    assert caught[0].filename == __file__
    assert old not in wp.__all__


def test_what_plugins_are_made_of_is_public():
    from wisepatch import hookspecs

    for name in ("Dataset", "Split", "Annotations", "Subset", "FileSamples", "open_folders", "DataError", "hookimpl"):
        assert name in wp.__all__
    for name in ("Metric", "Measured", "MergeMethod", "SelectionRule"):
        assert getattr(wp, name) is getattr(hookspecs, name)


def test_import_is_light():
    code = "import sys, wisepatch; print([m for m in ('torch', 'pandas', 'typer', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_everything_public_has_a_docstring():
    for name in wp.__all__:
        thing = getattr(wp, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name


def test_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()
