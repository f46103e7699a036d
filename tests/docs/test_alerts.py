"""deploy/prometheus/alerts.yaml: valid, about metrics that exist, and explained.

The expressions were parsed once with a full PromQL parser; here a small one guards against typing
errors: words that are no metric, function, label or keyword, and parentheses that do not match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from telemq.broker.core import BrokerCore
from telemq.broker.metrics import BrokerMetrics
from tests.support.metrics import LABELLED, helps
from tests.support.peers import LIMITS

ROOT = Path(__file__).parents[2]
_DOCUMENT: dict[str, Any] = yaml.safe_load(
    (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
)
RULES: list[dict[str, Any]] = [rule for group in _DOCUMENT["groups"] for rule in group["rules"]]
_PAGE = (ROOT / "docs" / "operations.md").read_text()

_FUNCTIONS = {"absent", "rate", "increase", "sum", "histogram_quantile"}
_KEYWORDS = {"and", "or", "on", "by"}
_LABELS = {"role", "code", "status", "instance", "job", "le"}
#: What Prometheus and the client library add themselves.
_OTHERS = {"up", "process_open_fds", "process_max_fds"}
_TOKEN = re.compile(
    r'\s*(?:(?P<word>[a-zA-Z_]\w*)|(?P<text>"[^"]*")|(?P<span>\[\d+[smhd]\])|(?P<number>[\d.]+)'
    r"|(?P<mark>[(){}]|==|!=|=~|>|<|=|\*|/|\+|-|,))"
)


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    """Yield each token's kind and text; fails where there is none."""
    place = 0
    while place < len(expression.rstrip()):
        found = _TOKEN.match(expression, place)
        assert found, f"not PromQL from here: {expression[place:]}"
        place = found.end()
        kind = found.lastgroup
        assert kind is not None
        yield kind, found[kind]


def known_metrics() -> set[str]:
    """Give every name that an expression may read."""
    names = set(helps()) | _OTHERS
    for histogram in ("telemq_collector_commit_seconds", "telemq_api_request_seconds"):
        names |= {f"{histogram}_{part}" for part in ("bucket", "sum", "count")}
    return names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_expression_reads_metrics_that_exist(rule: dict[str, Any]) -> None:
    """A metric is renamed, and its alert would never fire again."""
    opened: list[str] = []
    metrics = set()
    for kind, text in tokens(rule["expr"]):
        if text in "({":
            opened.append(text)
        elif text in ")}":
            assert opened.pop() + text in ("()", "{}"), rule["expr"]
        elif kind == "word" and text not in _FUNCTIONS | _KEYWORDS | _LABELS:
            assert text in known_metrics(), f"there is no metric {text}"
            metrics.add(text)
    assert not opened
    assert metrics, "it reads nothing"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    """It is three in the morning."""
    assert {"alert", "expr", "for", "labels", "annotations"} == set(rule)
    assert re.fullmatch(r"[1-9]\d*[smh]", rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"severity"} == set(rule["labels"])
    assert {"summary", "description"} == set(rule["annotations"])
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert len(summary) < 120
    assert len(description) > 60
    for text in (summary, description):
        assert text.endswith((".", "?"))
        templates = re.findall(r"{{(.*?)}}", text)
        allowed = rf" \$(value( \| humanize\w*)?|labels\.({'|'.join(_LABELS)})) "
        assert all(re.fullmatch(allowed, template) for template in templates), templates


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_is_explained_on_the_page(rule: dict[str, Any]) -> None:
    """Somebody looks an alert up, with the same severity and advice."""
    told = f"{rule['labels']['severity']}, {rule['for']} | {rule['annotations']['description']}"
    assert f"| `{rule['alert']}` | {told} |" in _PAGE


def test_names_are_given_once() -> None:
    """Two rules of one name cannot be silenced apart."""
    names = [rule["alert"] for rule in RULES]
    assert sorted(set(names)) == sorted(names)
    assert all(re.fullmatch(r"Telemq[A-Z]\w+", name) for name in names)


def test_small_parser_finds_typing_errors() -> None:
    """The test of the test."""
    with pytest.raises(AssertionError, match="not PromQL"):
        list(tokens("rate(telemq_x[5 m])"))
    assert ("word", "telemq_brokr_peers") in list(tokens("telemq_brokr_peers > 0"))
    assert "telemq_brokr_peers" not in known_metrics()


def test_labelled_metrics_are_what_the_broker_shows() -> None:
    """The list of the tests follows the code."""
    core = BrokerCore(LIMITS, b"")
    families = {f.name: f for f in BrokerMetrics(core.stats()).collect()}
    for name, text in LABELLED.items():
        assert text == families[name.removesuffix("_total")].documentation


@pytest.mark.parametrize(("name", "text"), helps().items())
def test_every_metric_is_on_the_page(name: str, text: str) -> None:
    """Somebody builds a dashboard."""
    assert re.search(rf"^\| `{name}` \|.*\| {re.escape(text)} \|$", _PAGE, re.M), name
