"""Templates that ask for years of work or for all memory: a fault of the row, soon, whatever the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SpecError
from batchinfer.job import reader
from batchinfer.prompting.growth import MOST_TEXT
from batchinfer.prompting.metered import Metered
from batchinfer.prompting.spec import Example, PromptSpec
from batchinfer.prompting.template import PromptTemplate, TemplateFault

GROW = "{{% set ns = namespace(a={start}) %}}{{% for i in range(60) %}}{{% set ns.a = {step} %}}{{% endfor %}}{{{{ {end} }}}}"


def filled(text: str, row: dict[str, Any]) -> str:
    """The prompt of a row."""
    return PromptTemplate(PromptSpec(template=text), [], "job.yaml").messages(row)[-1][1]


def fault(text: str, row: dict[str, Any] | None = None) -> str:
    """Why a row gives no prompt."""
    with pytest.raises(TemplateFault) as caught:
        filled(text + "{{ x }}", row or {"x": "v"})
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) recursive %}{{ loop(range(100000)) }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for i in range(100000) %}{{ range(100000)|list|length }}{% endfor %}",
        "{% for i in range(100000) %}{{ range(100000)|map(attribute='real')|sum }}{% endfor %}",
        "{% for i in range(100000) %}{{ range(100000)|select('odd')|list }}{% endfor %}",
    ],
)
@pytest.mark.long
def test_a_template_that_works_without_end_is_ended(text: str) -> None:
    """Loops in loops, macros that call themselves, and filters over long ranges spend the prompt's budget."""
    assert fault(text).startswith("the template asks for too much: ")


@pytest.mark.parametrize(
    "text",
    [
        "{{ 10 ** (10 ** 9) }}",
        "{{ (2 ** 90000) * (2 ** 90000) }}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 10 ** 10 * [1] }}",
        "{{ 'a'.center(10 ** 10) }}",
        "{{ x | center(10 ** 10) }}",
        "{{ x.zfill(10 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10 ** 9, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:>1000000000}'.format(x) }}",
        "{{ '{:>{w}}'.format(x, w=10 ** 9) }}",
        "{{ ('%s' * 100000) | format(*(['x' * 100000] * 100000)) }}",
        "{{ ('a' * 100000).replace('', 'b' * 1000000) }}",
        "{{ ('a' * 100000) | replace('', 'b' * 1000000) }}",
        "{{ ('\\n' * 100000) | indent(100000) }}",
        "{{ ('\\t' * 100000).expandtabs(100000) }}",
        "{{ (['x' * 1000000] * 100000) | join }}",
        "{{ ('b' * 1000000).join(['x'] * 100000) }}",
        "{{ (['x'] * 100000) | join('b' * 1000000) }}",
        "{{ ['x' * 1000000] * 100000 }}",
        "{{ [1] | batch(10 ** 9, 0) | list }}",
        "{{ [1] | slice(10 ** 9) | list }}",
        "{{ (1).to_bytes(10 ** 9) }}",
        "{% for i in range(100000) %}" + "y" * 10_000 + "{% endfor %}",
        GROW.format(start="'xxxxxxxx'", step="ns.a ~ ns.a", end="ns.a"),
        GROW.format(start="'xxxxxxxx'", step="ns.a + ns.a", end="ns.a"),
        GROW.format(start="[1]", step="ns.a + ns.a", end="ns.a"),
        GROW.format(start="[1]", step="[ns.a, ns.a]", end="ns.a"),
        GROW.format(start="[1]", step="[ns.a, ns.a]", end="ns.a | tojson"),
        GROW.format(start="[1]", step="[ns.a, ns.a]", end="ns.a | string"),
        GROW.format(start="[1]", step="[ns.a]", end="([ns.a] * 100000) | tojson(indent=10 ** 9)"),
        "{{ ('%999999s' * 2000) | format(*([x] * 2000)) }}",
        "{{ ('%(a(b))999999s' * 2000) % {'a(b)': 1} }}",
        "{{ ('%(a)s' * 100000) % {'a': 'x' * 1000000} }}",
        "{{ ('{:999999}' * 2000).format(*([x] * 2000)) }}",
        "{{ (('{:999999}' * 2000) | safe).format(*([x] * 2000)) }}",
        "{{ '{a:{b}{b}}'.format_map({'a': x, 'b': '99999'}) }}",
        "{{ ('{0!r}' * 1000).format('x' * 1000000) }}",
        "{{ ('a' * 1000000).translate({97: 'x' * 1000000}) }}",
        "{{ ('http://a.com ' * 50000) | urlize(target='x' * 100000) }}",
        "{{ ('a ' * 50000) | wordwrap(1, true, 'x' * 100000) }}",
        "{% set s = 'x' * 8000000 %}{% for i in range(100000) %}{% set t = s[1:] %}{% endfor %}",
        "{{ ([[0] * 99999] * 99999) | sum(start=[]) }}",
        "{{ (['x' * 100000] * 10000) | sort | length }}",
    ],
)
@pytest.mark.long
def test_a_template_that_asks_for_all_memory_gets_none(text: str) -> None:
    """What would be too long is known before it is made, whichever operator, method or filter makes it."""
    assert fault(text).startswith("the template asks for too much: ")


TWINS = "{{% set ns = namespace(a={0}, b={0}) %}}{{% for i in range(40) %}}{1}{{% endfor %}}"
LISTS = TWINS.format("[]", "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}")
PAIRS = TWINS.format("()", "{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}")


@pytest.mark.parametrize(
    "text",
    [
        LISTS + "{{ ns.a == ns.b }}",
        LISTS + "{{ ns.a in [ns.b] }}",
        LISTS + "{{ [ns.a].index(ns.b) }}",
        LISTS + "{{ {'c': ns.a}.items() == {'c': ns.b}.items() }}",
        LISTS + "{{ [ns.a, ns.b] | map('list') | sort }}",
        LISTS + "{{ [ns.a] | select('eq', ns.b) | list }}",
        LISTS + "{% for i in [1, 2] %}{{ loop.changed(ns.a) }}{{ loop.changed(ns.b) }}{% endfor %}",
        LISTS + "{{ ns }}",
        PAIRS + "{{ {ns.a: 1} | length }}",
        PAIRS + "{{ {}[ns.a] }}",
        PAIRS + "{{ {}.get(ns.a) }}",
        PAIRS + "{{ [x] | map(ns.a) | list }}",
        PAIRS + "{{ x | attr(ns.a) }}",
    ],
)
def test_what_holds_itself_twice_at_each_level_is_not_gone_through(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing or hashing forty levels of pairs would take 2 ** 40 steps, in which Python cannot be interrupted."""
    monkeypatch.setattr("batchinfer.prompting.growth.MOST_WORK", 2**18)
    assert fault(text).startswith("the template asks for too much: ")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("{{ '{a} {0[1]} {b.real!r:>5} {c:,.2f}'.format([1, 2], a=x, b=3, c=12345.678) }}", "v 2     3 12,345.68"),
        ("{{ '{b}'.format_map({'b': x}) }}{{ ('<{}>' | safe).format('<') }}", "v<&lt;>"),
        ("{{ '%-5s|%05.1f|%%' % (x, 3.14159) }}{{ '%(a)s'|format(a=3) }}", "v    |003.1|%3"),
        ("{{ 'Order 12345678: %s' % x }}", "Order 12345678: v"),
        ("{{ (x ~ 'bcdef')[1:3] }}{{ 'abc'[::-1] }}{{ [1, 2, 3][:2] }}", "bccba[1, 2]"),
        ("{{ [1, 2] | sum }}{{ [{'a': 1.5}] | sum(attribute='a') }}{{ [[x], [2]] | sum(start=[]) }}", "31.5['v', 2]"),
        ("{{ 1 < 2 < 3 }}{{ x in ['v'] and x != 'w' }}{{ {'a': {x: 1}}['a'][x] }}", "TrueTrue1"),
        ("{{ ['b', 'A'] | map('upper') | sort | join }}{{ [x, 'V'] | unique | list }}", "AB['v']"),
    ],
)
def test_what_is_counted_gives_what_jinja_gives(text: str, prompt: str) -> None:
    """Fields, slices, sums, comparisons and sorting work as ever, long numerals in the text beside fields too."""
    assert filled(text, {"x": "v"}) == prompt


@pytest.mark.parametrize(
    "text", ["{{ {}['q' * 900000] }}", "{{ [].index('q' * 900000) }}", "{{ [x] | map('q' * 900000) | list }}"]
)
def test_a_fault_does_not_repeat_a_long_value(text: str) -> None:
    """What Python says of a text of 900,000 characters is stored with the row, and shown."""
    assert len(fault(text)) < 400


def test_a_prompt_has_a_longest_length() -> None:
    """16 MB of text in one row pass; more is a fault of the row that says how much it was. Bytes are counted."""
    assert len(filled("{{ x }}", {"x": "a" * MOST_TEXT})) == MOST_TEXT
    for text in ("a" * (MOST_TEXT + 1), "ü" * (MOST_TEXT // 2 + 1)):
        assert fault("", {"x": text}) == "the prompt has 16.0 MB; at most 16 MB can be asked."
    assert fault("", {"x": "a" * 100_000_000}).startswith("the prompt has 95.4 MB")


def test_each_prompt_has_a_budget_of_its_own() -> None:
    """Many prompts that take much work are not one that takes too much, and one bad row does not end those after it."""
    template = PromptTemplate(PromptSpec(template="{% for i in range(n) %}{{ i }}{% endfor %}"), [], "job.yaml")
    for count in (50_000, 50_000, 50_000):
        assert len(template.messages({"n": count})[0][1]) > count
    for _ in range(9):
        with pytest.raises(TemplateFault):
            template.messages({"n": 100_000 * 10})
    assert template.messages({"n": 2})[0][1] == "01"


def test_a_template_that_asks_too_much_of_every_row_ends_the_command() -> None:
    """Where none of the first rows gave a prompt in its budget, the template is wrong, and not each of a million rows."""
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ x }}"
    template = PromptTemplate(PromptSpec(template=endless), [], "job.yaml")
    for _ in range(4):
        with pytest.raises(TemplateFault):
            template.messages({"x": "v"})
    with pytest.raises(SpecError, match="asks for too much of each row so far"):
        template.messages({"x": "v"})


@pytest.mark.parametrize(
    "text",
    ["{{ 9 ** 9 ** 3 }}", "{{ 'a' * 99999 }}", "{% for i in range(3) %}{{ i }}{% endfor %}", "{{ 'a' | upper }}"],
)
def test_reading_a_job_computes_nothing_of_its_template(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template is compiled by what makes prompts, and then nothing in it is worked out before it is filled."""
    job = f"name: shop\ninput: {{path: a, key: [x]}}\nmodel: {{id: a}}\nprompt:\n  template: {json.dumps(text + '{{ x }}')}\n"
    job += "  examples: [{input: {x: a}, output: b}]\n"
    with monkeypatch.context() as patched:
        patched.setattr(Metered, "compile", None)
        spec = reader.parse(job, "job.yaml").prompt
    assert spec is not None
    template = PromptTemplate(spec, [], "job.yaml")
    code = template._environment.compile(template._environment.prepared(template._tree), raw=True)
    assert "aaaa" not in code
    assert "'A'" not in code
    template.compile()


def test_examples_are_filled_within_a_budget() -> None:
    """An example that asks for too much is a fault of the job file, found before any row is asked."""
    example = Example(input={"x": "v", "n": 10**9}, output="a")
    template = PromptTemplate(PromptSpec(template="{{ 'a' * n }}{{ x }}"), [example], "job.yaml")
    with pytest.raises(SpecError, match=r"prompt\.examples, number 1: the template asks for too much"):
        template.compile()


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "(" * 3000 + "x" + ")" * 3000 + " }}",
        "{{ " + "x + " * 3000 + "x }}",
        "{{ x" + ".a" * 3000 + " }}",
        "{{ " + "not " * 3000 + "x }}",
        "{% if x %}" * 300 + "{% endif %}" * 300,
        "{% for x in x %}" * 30 + "{% endfor %}" * 30,
        "{{ [" * 1 + "[" * 3000 + "x" + "]" * 3000 + "] }}",
    ],
    ids=lambda text: text[:12],
)
def test_a_template_that_is_nested_without_measure_is_refused(text: str) -> None:
    """Nesting that Python cannot bear is a fault of the job file, in words."""
    with pytest.raises(SpecError, match=r"prompt\.template: is nested too deeply: at most 100 levels are read\."):
        PromptTemplate(PromptSpec(template=text), [], "job.yaml").compile()


def test_a_number_that_python_cannot_read_is_refused() -> None:
    """A numeral of thousands of digits is a fault of the job file."""
    with pytest.raises(SpecError, match=r"prompt\.template: cannot be used: "):
        PromptTemplate(PromptSpec(template="{{ x + " + "9" * 5000 + " }}"), [], "job.yaml")


def test_half_a_character_is_no_prompt() -> None:
    """A template can write half of a surrogate pair, which no model can be asked."""
    assert fault("{{ '\\ud83d' }}") == "the prompt has '\\ud83d', which is not a character."


# Prompts are text.


@given(st.recursive(st.text(st.characters(codec="utf-8")) | st.integers() | st.booleans(), st.lists, max_leaves=5))
def test_json_in_a_prompt_is_json_and_not_html(value: Any) -> None:
    """Characters of all scripts, and those that HTML would escape, stand as they are."""
    assert filled("{{ x | tojson }}", {"x": value}) == json.dumps(value, ensure_ascii=False, sort_keys=True)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("{{ x | tojson }}", '"<ü> & \'"'),
        ("{{ {'b': x, 'a': 1} | tojson(indent=1) }}", '{\n "a": 1,\n "b": "<ü> & \'"\n}'),
        ("{{ (x | tojson) + '<' }}", '"<ü> & \'"<'),
        ("{{ [x, '<'] | join('&') }}", "<ü> & '&<"),
        ("{% macro m(y) %}<{{ y }}>{% endmacro %}{{ m(x) }}", "<<ü> & '>"),
        ("{% set y %}<{{ x }}>{% endset %}{{ y + '&' }}", "<<ü> & '>&"),
        ("{{ x ~ 1 ~ none ~ [1] }}", "<ü> & '1None[1]"),
        ("{% for i in x %}{{ loop.index }}{{ loop.last }}{% if loop.length > 9 %}!{% endif %}{% endfor %}",
         "1False2False3False4False5False6False7True"),
    ],
)  # fmt: skip
def test_nothing_is_escaped_and_nothing_else_is_changed(text: str, prompt: str) -> None:
    """Whatever a text goes through, HTML is none of it; loops, macros and blocks work as in Jinja."""
    assert filled(text, {"x": "<ü> & '"}) == prompt
