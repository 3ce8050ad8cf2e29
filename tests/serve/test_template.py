"""Go templates become Jinja templates that write the same prompt, or are refused."""

import pytest

from terazi.errors import UnsupportedError
from terazi.runtime.chat import render
from terazi.serve.template import is_go, to_jinja

CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
MESSAGES = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<start_of_turn>user
{{- if and $.System (eq $i 0) }}
{{ $.System }}
{{- end }}
{{ .Content }}<end_of_turn>
{{ else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}{{ if not $last }}<end_of_turn>
{{ end }}
{{- end }}
{{- if and (ne .Role "assistant") $last }}<start_of_turn>model
{{ end }}
{{- end }}"""
TOOLS = """{{- if .Tools }}tools: {{ .Tools }}
{{ end }}{{- range .Messages }}{{ if .ToolCalls }}{{ range .ToolCalls -}}
call {{ .Function.Name }} {{ .Function.Arguments }}
{{ end }}{{ else }}[{{ .Role }}] {{ .Content }}
{{ end }}{{ end }}"""

USER, ANSWER = {"role": "user", "content": 'Hi "you"\n{{x}}'}, {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be kind."}


def test_one_turn():
    expected = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n" + USER["content"]
    expected += "<|im_end|>\n<|im_start|>assistant\n"
    assert render(to_jinja(CHATML), [SYSTEM, USER]) == expected


def test_several_turns():
    made = render(to_jinja(CHATML), [SYSTEM, USER, ANSWER, {"role": "user", "content": "And?"}])
    assert made.count("Be kind.") == 1
    assert made.endswith(
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_without_response_ends_with_it():
    assert render(to_jinja("[INST] {{ .System }} {{ .Prompt }} [/INST]"), [USER]) == (
        f"[INST]  {USER['content']} [/INST]"
    )


def test_walking_over_messages():
    made = render(to_jinja(MESSAGES), [USER, ANSWER, {"role": "user", "content": "And?"}])
    assert made == (
        f"<start_of_turn>user\n{USER['content']}<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_tools():
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    calls = [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}]
    template = ImmutableSandboxedEnvironment().from_string(to_jinja(TOOLS))
    made = template.render(messages=[USER, {"role": "assistant", "tool_calls": calls}], tools=[{"a": 1}])
    assert made == f'tools: [{{"a": 1}}]\n[user] {USER["content"]}\ncall weather {{"city": "Rome"}}\n'


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Unknown }}",
        "{{ if .System }}no end",
        "{{ .Prompt }}{{ end }}",
        "{{ range $x := .Messages }}{{ end }}",
        "{{ with .System }}x{{ end }}",
        "{{ if .Response }}{{ .Response }}{{ end }}{{ .Prompt }}",
        '{{ printf "%s" .Prompt }}',
        "{{ if (eq .Role }}{{ end }}{{ .Prompt }}",
        "{{ template \"x\" . }}{{ .Prompt }}",
        "{{ $x := .System }}{{ .Prompt }}",
    ],
)  # fmt: skip
def test_what_cannot_be_rewritten_is_refused(template):
    with pytest.raises(UnsupportedError, match="no equal in Jinja"):
        to_jinja(template)


def test_jinja_stays_as_it_is():
    jinja = "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ bos_token }}"
    assert not is_go(jinja)
    assert to_jinja(jinja) == jinja
    assert to_jinja("plain") == "plain"


def test_hostile_text_stays_text():
    made = render(to_jinja("a %} {# b #} '\" \\n {{ .Prompt }}"), [USER])
    assert made == f"a %}} {{# b #}} '\" \\n {USER['content']}"
