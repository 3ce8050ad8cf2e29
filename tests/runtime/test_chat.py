"""Templates give what transformers gives; hostile ones give an error."""

import pytest

from terazi.errors import EngineError
from terazi.runtime.chat import render

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße <b>&</b> “你好”"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Again?"},
]
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHelpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPACED = """{{ bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- continue %}
    {%- endif %}
    {{ '[' ~ message.role | upper ~ '] ' ~ message.content | trim }}{{ eos_token if loop.last }}
    {{ {'n': loop.index, 't': message.content} | tojson }}
    {% set ns = namespace(x=loop.index0 * 2) %}
    {{ ns.x }}
{% endfor %}
"""


@pytest.mark.parametrize("template", [CHATML, SPACED], ids=["chatml", "whitespace"])
@pytest.mark.parametrize("messages", [CHAT, CHAT[1:2]], ids=["system", "user"])
def test_same_text_as_transformers(template, messages):
    from transformers.utils.chat_template_utils import render_jinja_template

    (expected,), _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert render(template, messages, bos="<s>", eos="</s>") == expected


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{% for a in range(10**9) %}x{% endfor %}", "too large"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}", "without end"),
        ("{{ 'a' * 10000000000 }}", "too large"),
        ("{{ messages * 10000000000 }}", "too large"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "too large"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for", "template failed"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ none.x.y }}", "undefined|None"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% include '/etc/passwd' %}", "template failed"),
    ],
)
def test_hostile_templates(template, problem):
    with pytest.raises(EngineError, match=problem):
        render(template, CHAT)


def test_small_products_are_allowed():
    assert render("{{ '=' * 5 }}{{ 2 * 3 }}{{ 0.5 * 4 }}", []) == "=====62.0"
