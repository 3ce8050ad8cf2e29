"""Answers: pieces of text to events or one object, cut at stop texts wherever those fall."""

import json

from hypothesis import given
from hypothesis import strategies as st

from terazi.runtime.openai.answer import Answer, Piece, Writing
from terazi.runtime.openai.request import Ask, Sampling

CHAT = ({"role": "user", "content": "Hello"},)


def answer(texts, *, ending="length", **fields):
    """An answer in which every text is a token, and what was taken of them."""
    taken = []

    def pieces():
        for number, text in enumerate(texts):
            taken.append(text)
            yield Piece(text, ending=ending if number == len(texts) - 1 else None)

    ask = Ask(**{"prompt": CHAT, "sampling": Sampling()} | fields)
    return Answer(Writing(7, 3, pieces()), ask, "model"), taken


def events(made):
    *found, done = b"".join(made.events()).split(b"\n\n")[:-1]
    assert done == b"data: [DONE]"
    return [json.loads(event.removeprefix(b"data: ")) for event in found]


def whole(made):
    return json.loads(made.whole(list(made.texts())))


def test_a_whole_answer():
    made, _ = answer(["Good ", "day"])
    found = whole(made)
    assert found["object"] == "chat.completion"
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "Good day"}
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"]["total_tokens"] == 9
    assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert (found["timings"]["prompt_n"], found["timings"]["cache_n"]) == (4, 3)
    assert found["timings"]["predicted_n"] == 2


def test_a_stream():
    made, _ = answer(["Good ", "", "day"], ending="stop", stream=True, include_usage=True)
    *texts, last, usage = events(made)
    assert [event["choices"][0]["delta"] for event in texts] == [
        {"role": "assistant", "content": "Good "},
        {"content": "day"},
    ]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["object"] == "chat.completion.chunk"


def test_a_stream_without_a_word_still_has_a_role():
    made, _ = answer([""], ending="stop", stream=True)
    (last,) = events(made)
    assert last["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_a_text_completion():
    made, _ = answer(["one", "two"], prompt="zero")
    assert whole(made)["choices"][0]["text"] == "onetwo"
    made, _ = answer(["one", "two"], prompt="zero", stream=True)
    assert [event["choices"][0]["text"] for event in events(made)] == ["one", "two", ""]


def test_thoughts_are_told_apart():
    pieces = iter([Piece("Hm", thought=True), Piece("Yes", ending="stop")])
    ask = Ask(prompt=CHAT, sampling=Sampling())
    made = Answer(Writing(1, 0, (piece for piece in pieces)), ask, "model")
    assert whole(made)["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm",
    }


def test_a_stop_text_ends_the_engine_s_work():
    made, taken = answer(["a ", "st", "op", " more"], stop=("stop",))
    assert "".join(text for text, _ in made.texts()) == "a "
    assert taken == ["a ", "st", "op"]


@given(
    st.lists(st.text("ab ", max_size=3), min_size=1),
    st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3),
)
def test_stop_texts_cut_as_if_the_whole_had_been_searched(texts, stops):
    joined = "".join(texts)
    cuts = [joined.find(stop) for stop in stops if stop in joined]
    made, taken = answer(texts, stop=tuple(stops))
    told = "".join(text for text, _ in made.texts())
    seen = "".join(taken)
    found = [seen.find(stop) for stop in stops if stop in seen]
    assert told == (seen[: min(found)] if found else joined)
    assert bool(found) == bool(cuts)
    assert not any(stop in told for stop in stops)
