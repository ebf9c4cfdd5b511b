"""The layers of the product are drawn as they are, and no modules import each other in a circle."""

from __future__ import annotations

from tests.architecture.layers import DOCUMENT, circles, drawn, imported, layers
from tests.architecture.sources import module, product_modules


def test_picture_of_layers_is_current() -> None:
    text = DOCUMENT.read_text()
    assert text == drawn(text), "run python -m tests.architecture.layers"


def test_every_package_has_its_layer() -> None:
    known = {name for layer in layers() for name in layer}
    found = {".".join(each.name.split(".")[: 2 if each.name.startswith("kraft.") else 1]) for each in product_modules()}
    assert found - {"kraft"} == known


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(imported(product_modules())) == []


def test_a_circle_is_found() -> None:
    a = module("kraft.a", "from kraft.b import x")
    b = module("kraft.b", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kraft import c")
    c = module("kraft.c", "import kraft.a")
    d = module("kraft.d", "import kraft.a")
    assert circles(imported([a, b, c, d])) == [["kraft.a", "kraft.b", "kraft.c"]]
