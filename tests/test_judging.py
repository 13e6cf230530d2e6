"""Judges: asking over HTTP whatever the server does, and a file of answers that survives everything."""

import json
import logging
import multiprocessing
import signal
import subprocess
import sys
import threading

import pytest
from judge_server import JSON, completion, serving, slowly

from pixelrefer_plugin.contracts.benchmark import JudgeRequest
from pixelrefer_plugin.errors import DataError, EvaluationError, JudgeError
from pixelrefer_plugin.evaluation.judging import Judge, JudgeServer, ScoringTools
from pixelrefer_plugin.evaluation.judging.answers import JudgeAnswers, key_of, without_pictures
from pixelrefer_plugin.evaluation.judging.server import MOST_BYTES, MOST_CHARACTERS


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def request(text="Is it red?", part="1", **options):
    return JudgeRequest(f"id of {text}", part, [{"role": "user", "content": text}], options)


def judge_at(url, **options):
    return Judge.open("tiny-judge", url=url, **{"tries": 2, "timeout_s": 20, "pause_s": 0.01, **options})


def echo(body, number):
    return f"heard {body['messages'][-1]['content']}"


# -- well-behaved ------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_requests():
    requests = [request(f"q{number}") for number in range(20)]
    with serving(echo) as server:
        assert judge_at(server.url).ask(requests) == [f"heard q{number}" for number in range(20)]


def test_no_requests_need_no_judge():
    assert Judge("nobody").ask([]) == []


def test_options_that_a_benchmark_leaves_out_are_left_out():
    with serving(echo) as server:
        judge_at(server.url).ask([request("a"), request("b", temperature=0, max_tokens=300)])
    a, b = sorted(server.requests, key=lambda body: body["messages"][0]["content"])
    assert a == {"model": "tiny-judge", "messages": [{"role": "user", "content": "a"}]}
    assert b == {**a, "messages": [{"role": "user", "content": "b"}], "temperature": 0, "max_tokens": 300}


def test_a_user_overrides_options_and_takes_some_out():
    with serving(echo) as server:
        options = {"temperature": 0.7, "max_tokens": None, "max_completion_tokens": 50}
        judge_at(server.url, options=options).ask([request("a", temperature=0, max_tokens=300)])
    assert {name: server.requests[0].get(name) for name in options} == options
    assert "max_tokens" not in server.requests[0]


def test_requests_are_on_their_way_together_but_not_more_than_allowed():
    together = threading.Barrier(3, timeout=20)

    def reply(body, number):
        together.wait()
        return "A"

    with serving(reply) as server:
        assert judge_at(server.url, at_once=3).ask([request(f"q{number}") for number in range(9)]) == ["A"] * 9
    assert server.most_at_once == 3


def test_one_at_a_time_is_asked_in_order():
    with serving(echo) as server:
        judge_at(server.url, at_once=1).ask([request(f"q{number}") for number in range(9)])
    assert [body["messages"][0]["content"] for body in server.requests] == [f"q{number}" for number in range(9)]


def test_the_same_request_is_asked_once():
    with serving(echo) as server:
        assert judge_at(server.url).ask([request("a"), request("b"), request("a")]) == ["heard a", "heard b", "heard a"]
    assert len(server.requests) == 2


def test_progress_counts_to_the_end():
    told = []
    with serving(echo) as server:
        judge = judge_at(server.url, progress=lambda *counts: told.append(counts))
        judge.ask([request(f"q{number}") for number in range(5)])
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions"])
def test_the_address_may_be_written_with_its_end(ending):
    with serving(echo) as server:
        assert judge_at(server.url + ending).ask([request("a")]) == ["heard a"]


# -- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "given"), [("OPENAI_API_KEY", None), ("MY_KEY", "MY_KEY")])
def test_the_key_is_read_from_the_environment(monkeypatch, variable, given):
    monkeypatch.setenv(variable, "sk-secret\n")  # as `export KEY=$(cat file)` may leave it
    with serving(echo) as server:
        judge_at(server.url, key_variable=given).ask([request("a")])
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"


def test_a_key_that_is_named_must_be_there():
    with pytest.raises(JudgeError, match="environment variable 'MY_KEY'.* is not set"):
        judge_at("http://localhost:1/v1", key_variable="MY_KEY")


def test_a_key_that_no_header_can_carry_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one sk-two")
    with pytest.raises(JudgeError, match="OPENAI_API_KEY holds no key") as caught:
        judge_at("http://localhost:1/v1")
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("said", [(401, JSON, '{"error": {"message": "wrong key sk-secret"}}'), (500, "", "sk-secret")])
def test_a_key_that_the_server_repeats_is_not_shown(monkeypatch, said):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(lambda body, number: said) as server, pytest.raises(JudgeError, match=r"\*\*\*") as caught:
        judge_at(server.url).ask([request("a")])
    assert "sk-secret" not in str(caught.value)


def test_a_key_that_the_server_repeats_is_not_stored(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(lambda body, number: "sk-secret") as server:
        assert judge_at(server.url, cache=tmp_path / "judge.jsonl").ask([request("a")]) == ["***"]
    assert "sk-secret" not in (tmp_path / "judge.jsonl").read_text()


# -- badly behaved -----------------------------------------------------------------------------------------

FAULTS = {
    "a wrong key": ((401, JSON, '{"error": {"message": "no such key"}}'), r"refuses the key .HTTP 401.*OPENAI_API_KEY"),
    "forbidden": ((403, "text/plain", "go away"), "refuses the key .HTTP 403.*go away"),
    "an unknown model": ((404, JSON, '{"error": {"message": "no model"}}'), "has no model 'tiny-judge'.*HTTP 404"),
    "a bad request": ((400, JSON, '{"error": {"message": "too long"}}'), "HTTP 400: .*too long"),
    "too many": ((429, JSON, "{}"), "HTTP 429"),
    "broken": ((500, "text/html", "<h1>Oops</h1>"), "HTTP 500: .*Oops"),
    "HTML": ((200, "text/html", "<!DOCTYPE html><p>Log in"), "no chat completion, but '<!DOCTYPE html>"),
    "no JSON": ((200, JSON, "{"), "no chat completion"),
    "nothing": ((200, JSON, ""), "no chat completion, but ''"),
    "another JSON": ((200, JSON, "[]"), "no chat completion"),
    "null": ((200, JSON, "null"), "no chat completion"),
    "no choices": ((200, JSON, '{"choices": []}'), "no chat completion"),
    "choices null": ((200, JSON, '{"choices": null}'), "no chat completion"),
    "no message": ((200, JSON, '{"choices": [{}]}'), "no chat completion"),
    "a message that is a text": ((200, JSON, '{"choices": [{"message": "A"}]}'), "no chat completion"),
    "content that is a number": ((200, JSON, completion(7)), "content of its answer is no text, but 7"),
    "deep": ((200, JSON, "[" * 200_000), "no chat completion"),
    "no words at all": (None, "cannot be reached"),
}


@pytest.mark.parametrize(("said", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_what_is_missing(said, message):
    with serving(lambda body, number: said) as server, pytest.raises(JudgeError, match=message) as caught:
        judge_at(server.url).ask([request("a")])
    assert "1 of 1 answer of judge 'tiny-judge' at http://127.0.0.1" in str(caught.value)
    assert "question 'id of a', 1: " in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_address_that_refuses():
    with serving(echo) as server:
        url = server.url
    with pytest.raises(JudgeError, match=r"cannot be reached .*refused"):
        judge_at(url).ask([request("a")])


@pytest.mark.parametrize("url", ["localhost:8000/v1", "", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none(url):
    with pytest.raises(JudgeError, match="must be a URL such as"):
        judge_at(url)


def test_a_password_in_the_address_is_not_shown():
    with serving(lambda body, number: (400, JSON, "{}")) as server, pytest.raises(JudgeError) as caught:
        judge_at(server.url.replace("http://", "http://me:secret@")).ask([request("a")])
    assert "secret" not in str(caught.value)


def test_a_judge_that_never_answers():
    with serving(lambda body, number: server.released.wait(20) and None) as server:
        judge = judge_at(server.url, timeout_s=0.2)
        with pytest.raises(JudgeError, match=r"2 of 2 answers .*did not answer within 0.2 s"):
            judge.ask([request("a"), request("b")])
        assert len(server.requests) == 4  # two tries each


def test_a_judge_that_answers_a_byte_now_and_then():
    with serving(lambda body, number: (200, JSON, slowly(server))) as server:
        judge = judge_at(server.url, timeout_s=0.3)
        with pytest.raises(JudgeError, match=r"took longer than 0.3 s"):
            judge.ask([request("a")])


def test_a_judge_whose_reply_never_ends():
    with serving(lambda body, number: (200, JSON, slowly(server, b" " * 2**20, 0))) as server:
        judge = judge_at(server.url)
        with pytest.raises(JudgeError, match="larger than 8 MiB"):
            judge.ask([request("a")])
    assert MOST_BYTES == 8 * 2**20


def test_a_very_long_answer_is_cut_and_that_is_noted(tmp_path):
    with serving(lambda body, number: "A" * (MOST_CHARACTERS + 1)) as server:
        judge = judge_at(server.url, cache=tmp_path / "judge.jsonl")
        assert judge.ask([request("a")]) == ["A" * MOST_CHARACTERS]
    line = json.loads((tmp_path / "judge.jsonl").read_text())
    assert line["note"] == "cut at 20,000 of 20,001 characters"


CONTENTS = {
    "empty": (completion(""), "", ""),
    "none": (completion(None), "", "without text"),
    "a tool call": (completion(None, tool_calls=[{"function": {"name": "f"}}]), "", "tool_calls"),
    "a refusal": (completion(None, refusal="I cannot"), "", "I cannot"),
    "no content": ('{"choices": [{"message": {}}]}', "", "without text"),
    "parts": (completion([{"type": "text", "text": "A"}, {"type": "x"}, "y", {"text": "B"}]), "AB", ""),
    "half a character": ('{"choices": [{"message": {"content": "A\\ud83d"}}]}', "A\N{REPLACEMENT CHARACTER}", ""),
    "odd line breaks": (completion("A\u2028B\r\nC\x00"), "A\u2028B\r\nC\x00", ""),
    "HTML as the answer": (completion("<p>A</p>"), "<p>A</p>", ""),
}


@pytest.mark.parametrize(("body", "answer", "note"), CONTENTS.values(), ids=CONTENTS)
def test_what_a_judge_says_is_kept_as_it_came(tmp_path, body, answer, note):
    with serving(lambda *_: (200, JSON, body)) as server:
        assert judge_at(server.url, cache=tmp_path / "judge.jsonl").ask([request("a")]) == [answer]
    assert Judge.open("tiny-judge", cache=tmp_path / "judge.jsonl").ask([request("a")]) == [answer]
    (line,) = (tmp_path / "judge.jsonl").read_bytes().splitlines()
    assert note in json.loads(line).get("note", "")


@pytest.mark.parametrize("said", [(429, JSON, "{}"), (503, "text/html", ""), (200, "text/html", "<p>"), None])
def test_a_fault_that_passes_is_outlasted(said):
    with serving(lambda body, number: said if number < 2 else "A") as server:
        assert judge_at(server.url, tries=3).ask([request("a")]) == ["A"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_fault_that_stays_is_not_tried_again(status):
    with serving(lambda body, number: (status, JSON, "{}")) as server, pytest.raises(JudgeError):
        judge_at(server.url, at_once=1).ask([request("a")])
    assert len(server.requests) == 1


def test_a_wrong_key_stops_at_once():
    with (
        serving(lambda body, number: (401, JSON, "{}")) as server,
        pytest.raises(JudgeError, match="1,000 of 1,000 answers"),
    ):
        judge_at(server.url, at_once=1).ask([request(f"q{number}") for number in range(1000)])
    assert len(server.requests) < 1000


def test_faults_in_a_row_stop():
    with (
        serving(lambda body, number: (400, JSON, "{}")) as server,
        pytest.raises(JudgeError, match="1,000 of 1,000 answers"),
    ):
        judge_at(server.url, at_once=1).ask([request(f"q{number}") for number in range(1000)])
    assert len(server.requests) < 1000


def refuse_some(body, number):
    return (400, JSON, "{}") if body["messages"][0]["content"] in ("q2", "q7") else echo(body, number)


def test_single_faults_keep_the_others(tmp_path):
    requests = [request(f"q{number}") for number in range(10)]
    with serving(refuse_some) as server:
        judge = judge_at(server.url, cache=tmp_path / "judge.jsonl")
        with pytest.raises(JudgeError, match=r"2 of 10 answers .*'id of q2'.*'id of q7'.*judge.jsonl"):
            judge.ask(requests)
    assert len(server.requests) == 10
    with serving(echo) as server:
        again = judge_at(server.url, cache=tmp_path / "judge.jsonl")
        assert again.ask(requests) == [f"heard q{number}" for number in range(10)]
    assert len(server.requests) == 2


def test_single_faults_may_be_unread():
    requests = [request(f"q{number}") for number in range(10)]
    with serving(refuse_some) as server:
        answers = judge_at(server.url, on_missing="unread").ask(requests)
    assert [number for number, answer in enumerate(answers) if not answer] == [2, 7]


def test_openai_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EvaluationError, match=r"pip install 'pixelrefer-plugin\[eval\]'"):
        judge_at("http://localhost:1/v1").ask([request("a")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tries": 0}, "tries of a judge must be at least 1, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s of a judge must be"),
        ({"at_once": 0}, "at_once of a judge must be"),
        ({"options": {"stream": True}}, "their own stream"),
        ({"options": {"api_key": "x"}}, "must be no secret.*'api_key'.*OPENAI_API_KEY"),
        ({"options": {"extra_headers": {}}}, "must be no secret"),
        ({"on_missing": "zero"}, "must be refuse or unread, got 'zero'"),
    ],
)
def test_options_of_a_judge_are_checked(options, message):
    with pytest.raises(JudgeError, match=message):
        judge_at("http://localhost:1/v1", **options)


def test_a_judge_needs_a_name():
    with pytest.raises(JudgeError, match="--judge-model"):
        Judge.open("", url="http://localhost:1/v1")


def test_a_process_leaves_while_a_judge_is_silent():
    """Threads that wait for a server do not keep the process."""
    code = (
        "import sys; from pixelrefer_plugin.contracts.benchmark import JudgeRequest\n"
        "from pixelrefer_plugin.evaluation.judging import Judge\n"
        "judge = Judge.open('m', url=sys.argv[1], timeout_s=10000, progress=lambda *_: sys.exit(3))\n"
        "judge.ask([JudgeRequest(str(n), '1', [{'role': 'user', 'content': str(n)}]) for n in range(4)])\n"
    )
    with serving(lambda body, number: "A" if number == 0 else server.released.wait(100) and None) as server:
        done = subprocess.run([sys.executable, "-c", code, server.url], timeout=90, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (3, b"")


# -- the file of answers -----------------------------------------------------------------------------------


def test_what_was_said_is_not_asked_again(tmp_path):
    path = tmp_path / "judge.jsonl"
    requests = [request(f"q{number}", temperature=0) for number in range(5)]
    with serving(echo) as server:
        judge_at(server.url, cache=path).ask(requests)
    told = []
    later = Judge.open("tiny-judge", cache=path, progress=lambda *counts: told.append(counts))
    assert later.ask(requests[::-1]) == [f"heard q{number}" for number in range(4, -1, -1)]
    assert told == []


def test_another_judge_other_options_or_other_messages_are_asked(tmp_path):
    path = tmp_path / "judge.jsonl"
    with serving(echo) as server:
        judge_at(server.url, cache=path).ask([request("a", temperature=0)])
    for name, asked in [
        ("another", request("a", temperature=0)),
        ("tiny-judge", request("a")),
        ("tiny-judge", request("a", temperature=1)),
        ("tiny-judge", request("a ", temperature=0)),
    ]:
        with pytest.raises(JudgeError, match="1 of 1 answer of judge .* missing, and there is nobody to ask"):
            Judge.open(name, cache=path).ask([asked])


def test_a_line_tells_the_request_and_its_key_is_made_of_it(tmp_path):
    with serving(echo) as server:
        judge_at(server.url, cache=tmp_path / "judge.jsonl").ask([request("a", part="recognition", temperature=0)])
    line = json.loads((tmp_path / "judge.jsonl").read_text())
    assert line == {
        "key": key_of("tiny-judge", line["messages"], line["options"]),
        "judge": "tiny-judge",
        "id": "id of a",
        "part": "recognition",
        "messages": [{"role": "user", "content": "a"}],
        "options": {"temperature": 0},
        "answer": "heard a",
        "origin": "asked",
    }


def with_picture(data, text="What is it?"):
    url = {"url": f"data:image/png;base64,{data}", "detail": "low"}
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": url}]
    return JudgeRequest("1", "1", [{"role": "user", "content": parts}])


def test_pictures_are_sent_but_not_stored(tmp_path):
    data = "QUJD" * 1000
    with serving(lambda body, number: "A") as server:
        judge = judge_at(server.url, cache=tmp_path / "judge.jsonl")
        judge.ask([with_picture(data)])
        judge.ask([with_picture(data)])
        assert len(server.requests) == 1
        judge.ask([with_picture(data + "QUJE")])
    assert len(server.requests) == 2
    assert server.requests[0]["messages"][0]["content"][1]["image_url"]["url"].endswith(data)
    text = (tmp_path / "judge.jsonl").read_text()
    assert "QUJDQUJD" not in text
    stored = json.loads(text.splitlines()[0])["messages"]
    assert stored == without_pictures(with_picture(data).messages)
    assert stored[0]["content"][1]["image_url"]["url"].startswith("sha256:")


@pytest.mark.parametrize("cut", [1, 20, -2, -1])
def test_half_a_line_is_dropped_and_written_behind(tmp_path, cut, caplog):
    path = tmp_path / "judge.jsonl"
    requests = [request(f"q{number}") for number in range(3)]
    with serving(echo) as server:
        judge_at(server.url, cache=path, at_once=1).ask(requests)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + lines[1] + lines[2][:cut])
        assert judge_at(server.url, cache=path).ask(requests) == ["heard q0", "heard q1", "heard q2"]
    assert len(server.requests) == (4 if cut != -1 else 3)
    with caplog.at_level(logging.WARNING):
        assert Judge.open("tiny-judge", cache=path).ask(requests) == ["heard q0", "heard q1", "heard q2"]
    assert ("half a line" in caplog.text) == (cut != -1)


@pytest.mark.parametrize("cut", [1, 5, 20, 200])
def test_half_of_the_first_line_is_dropped_and_written_behind(tmp_path, cut):
    path = tmp_path / "judge.jsonl"
    Judge.open("m", cache=path).import_answers([(request("a"), "A")], origin="x")
    path.write_bytes(path.read_bytes()[:cut])
    Judge.open("m", cache=path).import_answers([(request("a"), "B")], origin="x")
    assert Judge.open("m", cache=path).ask([request("a")]) == ["B"]


def test_a_killed_process_loses_what_it_had_not_heard(tmp_path):
    path, requests = tmp_path / "judge.jsonl", [request(f"q{number}") for number in range(30)]
    heard = threading.Semaphore(0)

    def reply(body, number):
        heard.release()
        return echo(body, number)

    with serving(reply) as server:
        for _ in range(2):
            process = multiprocessing.get_context("spawn").Process(target=ask_all, args=(server.url, path, requests))
            process.start()
            for _ in range(6):
                assert heard.acquire(timeout=60)
            process.kill()
            process.join()
            assert process.exitcode in (-signal.SIGKILL, 0)
            process.close()
        assert judge_at(server.url, cache=path).ask(requests) == [f"heard q{number}" for number in range(30)]
        assert len(server.requests) <= 30 + 2 * 2  # of each killed one, those on their way


def ask_all(url, path, requests):
    judge_at(url, cache=path, at_once=2).ask(requests)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "1", "answer": "A cat."}\n', "line 1 must be an object with the texts key, judge, answer, origin"),
        ("[1]\n", "line 1 must be an object"),
        ("a,b\n1,2\n", "line 1 is no JSON"),
    ],
)
def test_another_file_is_refused_and_left_alone(tmp_path, text, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Judge.open("tiny-judge", cache=path)
    assert path.read_text() == text


def test_a_file_without_a_folder_is_refused_before_anybody_is_asked(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        Judge.open("tiny-judge", cache=tmp_path / "no" / "judge.jsonl")


def test_a_folder_is_no_file_of_answers(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Judge.open("tiny-judge", cache=tmp_path)


def test_published_answers_are_taken_over_with_their_origin(tmp_path):
    path, requests = tmp_path / "judge.jsonl", [request("a"), request("b")]
    judge = Judge.open("Llama", cache=path)
    assert judge.import_answers(zip(requests, ["A", "B"], strict=True), origin="x_eval.json") == 2
    again = Judge.open("Llama", cache=path)
    assert again.ask(requests) == ["A", "B"]
    assert again.origins(requests) == {"x_eval.json": 2}
    assert len(again.answers) == 2


def test_of_two_answers_to_a_request_the_later_one_counts(tmp_path):
    judge = Judge.open("Llama", cache=tmp_path / "judge.jsonl")
    judge.import_answers([(request("a"), "A"), (request("a"), "B")], origin="x")
    assert Judge.open("Llama", cache=tmp_path / "judge.jsonl").ask([request("a")]) == ["B"]


def test_answers_in_memory_alone():
    answers = JudgeAnswers()
    Judge("Llama", answers=answers).import_answers([(request("a"), "A")], origin="x")
    assert Judge("Llama", answers=answers).ask([request("a")]) == ["A"]


# -- tools of benchmarks -----------------------------------------------------------------------------------


def test_without_a_judge_it_is_told_how_many_answers_are_missing():
    tools = ScoringTools()
    assert tools.judge == ""
    with pytest.raises(JudgeError, match="2 answers of a judge are missing.*--judge-url"):
        tools.ask_judge([request("a"), request("b")])


def test_tools_ask_the_judge_and_note_where_answers_are_from(tmp_path):
    with serving(echo) as server:
        judge = judge_at(server.url)
        judge.import_answers([(request("a"), "A")], origin="x_eval.json")
        tools = ScoringTools(judge)
        assert tools.judge == "tiny-judge"
        assert tools.ask_judge([request("a"), request("b")]) == ["A", "heard b"]
    assert tools.notes == ["1 of 2 answers of the judge are from x_eval.json."]


def test_a_name_of_ones_own_for_a_judge():
    with serving(echo) as server:
        judge = Judge("llama-3.1", server=JudgeServer(url=server.url, model="/models/llama"))
        judge.ask([request("a")])
    assert (judge.name, server.requests[0]["model"]) == ("llama-3.1", "/models/llama")
