"""Rule IDs: each one that is cited stands in docs/rules.md, each one there is cited, and no user meets one."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from metadata import settings
from tests.architecture.sources import ROOT

RULES = ROOT / "docs" / "rules.md"
CITED = re.compile(r"(?<![\w-])(SO-[SL]\d{1,2}|[QBLRIPDTFGSUK]\d{1,2})(?!\w|\.\d)")
"""In comments, strings and prose. `S1-` or `P0.5` are no citations, names of variables are not looked at."""
RANGE = re.compile(r"(?<![\w-])([QBLRIPDTFGSUK])(\d{1,2})(?: to |-)\1(\d{1,2})(?!\w)")
"""`G1 to G8`, `R4-R6`."""
LISTED = re.compile(r"^- \*\*([A-Z]+(?:-[SL])?\d+)\*\*: ", re.MULTILINE)


def test_cited_and_listed_rules_match():
    listed = set(listed_rules(RULES.read_text(encoding="utf-8")))
    cited: dict[str, str] = {}
    for path in _sources():
        for rule in citations(path, known=cited):
            cited.setdefault(rule, str(path.relative_to(ROOT)))
    unknown = {rule: where for rule, where in cited.items() if rule not in listed}
    assert not unknown, f"cited and not in docs/rules.md: {unknown}"
    assert not listed - set(cited), f"in docs/rules.md and cited nowhere: {sorted(listed - set(cited))}"


def test_file_with_new_citations_is_scanned(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text("# P3\nI4 = 1  # S2\n")
    assert [*citations(path)] == [*citations(path, known={"P3", "I4"})] == ["P3", "S2"]
    assert [*citations(path, known={"P3", "I4", "S2"})] == []


def test_no_rule_is_listed_twice():
    listed = listed_rules(RULES.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(set(listed))


def test_descriptions_of_settings_have_no_rule_ids():
    models = (settings.TopicSettings, settings.BrokerSettings)
    with_ids = {
        name: field.description
        for model in models
        for name, field in model.model_fields.items()
        if field.description and CITED.search(field.description)
    }
    assert not with_ids


def test_citations_are_found():
    assert set(in_text("Two at once (R2, G1 to G3), and I7: SO-S4, but not P0.5, UTF8, S1x or x-S1.")) == {
        *("R2", "G1", "G2", "G3", "I7", "SO-S4")
    }
    assert set(in_python('P1 = f(S2)  # P3\n"""I4."""\n')) == {"P3", "I4"}
    assert listed_rules("## Q\n\n- **Q5**: one, and **Q6**\n  Source: KIP-1.\n- **SO-L13**: two.\n") == ["Q5", "SO-L13"]


def listed_rules(text: str) -> list[str]:
    return LISTED.findall(text)


def citations(path: Path, *, known: Container[str] = ()) -> Iterable[str]:
    """None of those that are known, if there is no other."""
    text = path.read_text(encoding="utf-8")
    if all(rule in known for rule in in_text(text)):
        return ()  # most of them: to look for comments and strings takes longer
    return in_python(text) if path.suffix == ".py" else in_text(text)


def in_python(text: str) -> Iterator[str]:
    """The citations in comments and strings; a name such as P1 in the code is none."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from in_text(token.string)


def in_text(text: str) -> Iterator[str]:
    for letter, first, last in RANGE.findall(text):
        yield from (f"{letter}{number}" for number in range(int(first), int(last) + 1))
    yield from CITED.findall(text)


def _sources() -> Iterator[Path]:
    for folder in ("kraft", "metadata", "replication", "tests", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            is_own = path != RULES and path.name != Path(__file__).name
            if is_own and path.suffix in (".py", ".md", ".toml") and ".venv" not in path.parts:
                yield path
    yield ROOT / "ARCHITECTURE.md"
