"""Row + template → prompt: shots, strictness, what a template may not do, and texts that pass unharmed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchinfer.errors import SpecError
from batchinfer.prompting.spec import Example, PromptSpec
from batchinfer.prompting.template import PromptTemplate, TemplateFault, column_reference, few_shot

EXAMPLES = [
    Example(input={"fruit": "peach"}, output="drupe"),
    Example(input={"fruit": "pear"}, output="pome"),
    Example(input={"fruit": "grape"}, output="berry"),
]


def template(text: str, examples: list[Example] | None = None, **fields: Any) -> PromptTemplate:
    """A template as a job makes it."""
    return PromptTemplate(PromptSpec(template=text, **fields), examples or [], "job.yaml")


def question(text: str, row: dict[str, Any]) -> str:
    """A template filled with a row: the text of the last chat turn."""
    role, content = template(text).messages(row)[-1]
    assert role == "user"
    return content


def refused(text: str, examples: list[Example] | None = None) -> str:
    """Why a job with this template is refused before any row is read."""
    with pytest.raises(SpecError) as caught:
        template(text, examples)
    [problem] = caught.value.problems
    return problem


def fault(text: str, row: dict[str, Any]) -> str:
    """Why a row cannot be put into this template."""
    made = template(text)
    with pytest.raises(TemplateFault) as caught:
        made.messages(row)
    return str(caught.value)


# Shots.


@pytest.mark.parametrize(("shots", "count"), [(0, 0), (1, 1), (2, 2), (3, 3), ("all", 3)])
def test_shots_take_the_first_examples(shots: int | str, count: int) -> None:
    """Zero, one, few and all shots are the first so many examples, in the job's order."""
    assert few_shot(EXAMPLES, shots, "job.yaml") == EXAMPLES[:count]


def test_all_of_no_examples_is_none() -> None:
    """A job without examples may say all or 0, and shows none."""
    assert few_shot([], "all", "job.yaml") == few_shot([], 0, "job.yaml") == []


def test_more_shots_than_examples_are_refused() -> None:
    """Asking for more examples than there are is said, not quietly made fewer."""
    with pytest.raises(SpecError) as caught:
        few_shot(EXAMPLES, 4, "job.yaml")
    assert caught.value.problems == ["prompt.shots: is 4, but the job has only 3 examples."]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_in_a_chat_each_example_is_a_turn_of_both(count: int) -> None:
    """The system text comes first, then a question and an answer for each example, then the row's own question."""
    made = template("What is a {{ fruit }}?", EXAMPLES[:count], system="Botany only.")
    turns = [("system", "Botany only.")]
    for fruit, kind in [("peach", "drupe"), ("pear", "pome"), ("grape", "berry")][:count]:
        turns += [("user", f"What is a {fruit}?"), ("assistant", kind)]
    assert made.messages({"fruit": "apple"}) == (*turns, ("user", "What is a apple?"))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "apple:"),
        (1, "peach: drupe\napple:"),
        (3, "peach: drupe\npear: pome\ngrape: berry\napple:"),
    ],
)
def test_in_a_completion_each_example_is_a_line(count: int, text: str) -> None:
    """The examples are finished lines, and the row's own is left open for the model to go on."""
    made = template("{{ fruit }}:", EXAMPLES[:count], format="completion")
    assert made.messages({"fruit": "apple"}) == (("text", text),)


def test_in_a_completion_the_system_text_stands_above() -> None:
    """What the model is told comes before the examples, set off by an empty line."""
    made = template("{{ fruit }}:", EXAMPLES[:1], format="completion", system="Fruits.")
    assert made.messages({"fruit": "apple"}) == (("text", "Fruits.\n\npeach: drupe\napple:"),)


def test_without_a_system_text_there_is_no_such_turn() -> None:
    """An absent or empty system text is not an empty turn."""
    for system in (None, ""):
        assert template("{{ fruit }}", system=system).messages({"fruit": "apple"}) == (("user", "apple"),)


@pytest.mark.parametrize("text", ["{{ fruit }}:", "{{ fruit }}: ", "{{ fruit }}:   ", "{{ fruit }}:\n"])
def test_a_completion_never_ends_in_a_space(text: str) -> None:
    """A space at the template's end is the answer's to write, and an example has exactly one there."""
    made = template(text, EXAMPLES[:1], format="completion")
    assert made.messages({"fruit": "apple"}) == (("text", "peach: drupe\napple:"),)


def test_a_chat_keeps_the_spaces_of_its_template() -> None:
    """In a chat nothing is trimmed but the line end that a YAML block leaves at the very end."""
    assert question(" {{ fruit }} \n\n", {"fruit": " a "}) == "  a  \n"


# Columns.


def test_an_example_has_a_value_for_each_column() -> None:
    """An example that lacks a column is refused, even where the template has a default for it."""
    said = refused("{{ fruit }}{{ note | default('') }}", EXAMPLES[:1])
    assert said == "prompt.examples, number 1: the template needs a value that is not there: 'note' is undefined."


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("{{ b }} {{ a }}", ["b", "a"]),
        ("{{ b }} {{ a }} {{ b }}", ["b", "a"]),
        ("{{ z|upper }}{% if c %}{{ a }}{% else %}{{ b }}{% endif %}", ["z", "c", "a", "b"]),
        ("{% for name in names %}{{ name }}{{ sep }}{% endfor %}", ["names", "sep"]),
        ("{% set x = first %}{{ x }}{{ second }}", ["first", "second"]),
        ("{{ person.name }}{{ tags[index] }}", ["person", "tags", "index"]),
        ("{# {{ hidden }} #}{{ a }}{% raw %}{{ raw }}{% endraw %}", ["a"]),
        ("{% for i in range(count) %}{{ a }}{% endfor %}", ["count", "a"]),
        (
            "{{ range }} {{ dict }} {{ namespace }} {{ cycler }} {{ lipsum }}",
            ["range", "dict", "namespace", "cycler", "lipsum"],
        ),
    ],
)
def test_the_columns_are_those_that_the_template_uses(text: str, columns: list[str]) -> None:
    """Columns are named once, as they first appear; loop variables and functions are none, whatever a column is called."""
    assert template(text).columns == columns


def test_a_column_may_be_called_as_a_function_is() -> None:
    """A column named range or dict is the row's value."""
    assert question("{{ range }}, {{ dict }}", {"range": "Alps", "dict": "OED"}) == "Alps, OED"


def test_columns_that_the_template_does_not_use_do_nothing() -> None:
    """A row, like an example, may have more than the template asks for."""
    made = template("{{ fruit }}", [Example(input={"fruit": "pear", "colour": "green"}, output="pome")])
    assert made.messages({"fruit": "fig", "colour": "blue"}) == (
        ("user", "pear"),
        ("assistant", "pome"),
        ("user", "fig"),
    )


@pytest.mark.parametrize("text", ["Which fruit?", "", "{{ 'fruit' }}", "{% set fruit = 1 %}{{ fruit }}", "{fruit}"])
def test_a_template_without_a_column_is_refused(text: str) -> None:
    """A template that asks every row the same is a mistake, such as single braces."""
    assert refused(text).startswith("prompt.template: uses no column")


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("{{ fruit }}", {}),
        ("{{ fruit }} {{ colour }}", {"fruit": "apple"}),
        ("{{ fruit.colour }}", {"fruit": {"size": 1}}),
        ("{{ fruit.colour.name }}", {"fruit": {}}),
        ("{{ fruit[3] }}", {"fruit": [1]}),
        ("{% if colour %}red{% endif %}{{ fruit }}", {"fruit": "apple"}),
        ("{% for c in colours %}{{ c }}{% endfor %}{{ fruit }}", {"fruit": "apple"}),
    ],
)
def test_a_value_that_is_not_there_is_a_fault_of_the_row(text: str, row: dict[str, Any]) -> None:
    """A missing value never becomes an empty text in a prompt."""
    assert fault(text, row).startswith("the template needs a value that is not there: ")


def test_an_example_without_a_column_is_refused() -> None:
    """The message counts the example and names what it lacks."""
    examples = [*EXAMPLES, Example(input={"fruti": "fig"}, output="multiple")]
    assert refused("{{ fruit }}", examples) == (
        "prompt.examples, number 4: the template needs a value that is not there: 'fruit' is undefined."
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{ fruit", 1),
        ("a\n{% if fruit %}", 2),
        ("a\n\n{{ fruit|nofilter }}", 3),
        ("{% nonsense %}{{ fruit }}", 1),
        ("{{ 1 + }}", 1),
    ],
)
def test_a_template_with_a_fault_is_refused_with_its_line(text: str, line: int) -> None:
    """What Jinja cannot read is told with the template's own line."""
    assert refused(text).startswith(f"prompt.template, line {line}: ")


# What a template may not do.


@pytest.mark.parametrize(
    "text",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ x|attr('__class__') }}",
        "{{ ''.__class__.__mro__ }}{{ x }}",
        "{{ x.upper.__self__ }}",
        "{{ cycler.__init__.__globals__.os }}{{ x }}",
        "{{ self._TemplateReference__context }}{{ x }}",
        "{% set y = x.__class__ %}{{ y }}",
        "{% set name = '__class__' %}{{ x[name] }}",
        "{% set name = '__cla' ~ 'ss__' %}{{ x|attr(name) }}",
        "{{ [x]|map(attribute='__class__')|list }}",
        "{% macro m(y=x.__class__) %}{{ y }}{% endmacro %}{{ m() }}",
        "{% if x.__class__ %}{% endif %}",
        "{{ x | sort(attribute='__class__') }}",
    ],
)
def test_a_template_with_internal_names_of_python_is_refused(text: str) -> None:
    """A job is refused before any row is read if its template has names that are internal to Python."""
    assert refused(text).endswith(" is an internal name of Python, which a template may not use.")


@pytest.mark.parametrize(
    "text",
    [
        "{{ x['_' ~ '_class__'] }}",
        "{{ x|attr('_' ~ '_class__') }}",
        "{% set u = '_' %}{{ x[u ~ u ~ 'class' ~ u ~ u] }}",
        "{{ x['ssalc__'[::-1] ~ '__'] or x['_' * 2 ~ 'class' ~ '_' * 2] }}",
        "{{ '{0._CLS_}'.replace('CLS', '_class_').format(x) }}",
        "{{ x['_' ~ name] }}",
        "{{ (x|list).append('y') }}",
        "{% include '/etc/passwd' %}{{ x }}",
        "{% import '/etc/passwd' as words %}{{ x }}",
        "{% extends '/etc/passwd' %}{{ x }}",
    ],
)
def test_what_is_spelled_in_pieces_is_a_fault_of_the_row(text: str) -> None:
    """A template that puts such a name together when it is filled, changes a value or reads a file gets nothing."""
    assert fault(text, {"x": "v", "name": "_class__"}).startswith("the template ")


@pytest.mark.parametrize(
    "text", ["{{ [x]|map(attribute='_' ~ '_class__')|list }}", "{{ x|groupby('_' ~ '_class__') }}"]
)
def test_a_filter_reaches_no_further(text: str) -> None:
    """A filter that takes a name finds nothing behind it."""
    filled = question(text, {"x": "v"})
    assert "Undefined" in filled
    assert "class" not in filled


def test_a_gap_in_a_text_is_no_secret() -> None:
    """Underscores that stand for a gap are plain text, in a template and in its filters."""
    assert question("{{ x|replace('____', '...') }}: ____", {"x": "an ____ a day"}) == "an ... a day: ____"


@pytest.mark.parametrize(
    "text",
    [
        "{{ x }}{% for i in range(10**9) %}a{% endfor %}",
        "{{ x }}{{ range(10**9)|list }}",
        "{{ x * 10**13 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}{{ x }}",
        "{{ 1 / 0 }}{{ x }}",
        "{{ x|int / 0 }}",
        "{{ x + 1 }}",
        "{{ '{missing}'.format(a=x) }}",
        "{{ '{7}'.format(x) }}",
        "{{ x|dictsort }}",
        "{{ x.encode('nonsense') }}",
        "{{ x.index('z') }}",
    ],
)
def test_a_template_that_fails_on_a_row_fails_only_there(text: str) -> None:
    """Whatever a template raises while it is filled is a fault of that row, soon, and no end of the run."""
    said = fault(text, {"x": "v"})
    assert said.startswith(("the template could not be filled: ", "the template asks for too much: "))
    assert "Range too big" in said or "range" not in text


@pytest.mark.parametrize("text", ["{{ lipsum() }}{{ x }}", "{{ x }}{{ lipsum(1, false) }}"])
def test_a_template_cannot_make_texts_up(text: str) -> None:
    """The same row gives the same prompt: there is no function that draws lots."""
    fault(text, {"x": "v"})
    assert refused("{{ x|random }}") == "prompt.template, line 1: No filter named 'random'."


# Texts pass unharmed.

AWKWARD = [
    "\U0001f9d1\u200d\U0001f680\U0001f44d\U0001f3fd",  # emoji that are joined, and with a skin tone
    "\u0645\u0631\u062d\u0628\u0627 abc \u05e9\u05dc\u05d5\u05dd \u202etxt\u202c",  # right to left, with marks
    "e\u0301 \u00e9 \u1100\u1161\u11a8 \uac01 Z\u0351\u036b",  # combining, composed and not
    "{{ fruit }} {% raw %} {# no #} <b>&amp;</b> \\n",  # what a template or a page would read
    "a\r\nb\rc\n\n\td\u2028e\u0085f\x00g\ufeff",  # ends of lines and other controls
]
any_text = st.text(st.characters(codec="utf-8"))


def with_awkward(test: Any) -> Any:
    for text in AWKWARD:
        test = example(text)(test)
    return test


@with_awkward
@given(any_text)
@pytest.mark.long
def test_a_text_stands_in_a_chat_as_it_is_in_the_list(text: str) -> None:
    """Emoji, right-to-left text, combining characters and all else come through byte for byte, in a row and an example."""
    made = template("<{{ fruit }}>", [Example(input={"fruit": text}, output=text)], system=text)
    assert made.messages({"fruit": text})[-3:] == (("user", f"<{text}>"), ("assistant", text), ("user", f"<{text}>"))


@with_awkward
@given(any_text)
def test_a_text_stands_in_a_completion_as_it_is_in_the_list(text: str) -> None:
    """A completion changes nothing either but for spaces at its very end."""
    made = template("<{{ fruit }}>:", [Example(input={"fruit": text}, output=text)], format="completion")
    assert made.messages({"fruit": text}) == (("text", f"<{text}>: {text}\n<{text}>:"),)


@with_awkward
@given(any_text)
def test_the_text_of_a_template_is_no_different(text: str) -> None:
    """What stands around the columns comes through as well, with the line ends that YAML gives."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    assert (
        question("{% raw %}" + text.replace("{%", "") + "{% endraw %}{{ x }}", {"x": "!"})
        == text.replace("{%", "") + "!"
    )


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (1.5, "1.5"), (True, "True"), ([1, 2], "[1, 2]"), ("", "")])
def test_values_that_are_no_text_are_written_as_python_does(value: Any, text: str) -> None:
    """Numbers and other values need no filter to be few_shot."""
    assert question("{{ x }}", {"x": value}) == text


# Columns whose names are no variables.


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('{{ row["Product Name"] }}', ["Product Name"]),
        ("{{ row['a=b'] }} {{ text }} {{ row['text'] }}", ["a=b", "text"]),
        ('{% if row["x y"] %}{{ row["x y"]|upper }}{% endif %}{{ z }}', ["x y", "z"]),
        ('{{ row["meta data"]["a b"] }}', ["meta data"]),
        ('{{ row["größe \\"L\\""] }}', ['größe "L"']),
        ("{{ row }}", ["row"]),
        ('{{ row["a"] }} {{ row }}', ["row"]),
        ("{{ row[name] }}", ["row", "name"]),
        ("{% for row in rows %}{{ row }}{% endfor %}", ["rows"]),
    ],
)
def test_a_column_of_any_name_can_be_used(text: str, columns: list[str]) -> None:
    """row["any name"] is a column; `row` by itself is one of that name, as ever."""
    assert template(text).columns == columns


def test_columns_by_name_are_filled_in() -> None:
    """They are values like others, and one that is not there is a fault of its row."""
    row = {"Product Name": "Tee", "meta data": {"a b": [1, 2]}, "text": "x"}
    assert question('{{ row["Product Name"] }}, {{ text }}, {{ row["meta data"]["a b"][1] }}', row) == "Tee, x, 2"
    assert "no attribute 'Product Name'" in fault('{{ row["Product Name"] }}', {"text": "x"})
    assert question("{{ row.a }}", {"row": {"a": 1}}) == "1"


@pytest.mark.parametrize(
    "name",
    ["text", "größe", "Product Name", "a=b", 'say "x"', "back\\slash", "a}}b", "no", "not", "1st", "row", "x\ny"],
)
def test_each_name_has_a_way_to_be_written(name: str) -> None:
    """What a proposal writes for a column is that column."""
    reference = column_reference(name)
    assert reference is not None
    assert question(f"{{{{ {reference} }}}}", {name: "value"}) == "value"
