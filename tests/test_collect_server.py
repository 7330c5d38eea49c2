"""Servers: what they send is read; those that cannot score a prompt are refused with the reason.

Against a small server of our own here; against llama-cpp-python's real one when slow.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fake_model import WORDS, Fake, nll_of

from bayesicl.collect.backend import self_test
from bayesicl.collect.plan import Order, Plan
from bayesicl.collect.prompts import plain
from bayesicl.collect.questions import Task
from bayesicl.collect.server import Server, _is_best
from bayesicl.errors import InputError

TASK = Task("sums", tuple(f"{n} + 1" for n in range(9)), {"": tuple(str(n + 1) for n in range(9))})


def test_of_equal_log_probabilities_the_one_named_beside_is_greedy():
    assert _is_best(-0.7, {" a": -0.7})
    assert _is_best(-0.7, {" a": -0.7, " b": -1.0})
    assert not _is_best(-0.7, {" a": -0.7, " b": -0.7})
    assert not _is_best(-0.7, {" b": -0.1})


def completion(body, mode):
    """What a server of this kind answers to a request."""
    prompt = body["prompt"]
    made = Fake().goes_on(prompt)
    if not body.get("echo"):
        return {"text": made, "logprobs": None}
    found = [*WORDS.finditer(prompt)]
    texts = [m.group() for m in found]
    values = [None, *(-nll_of(prompt[: m.end()]) for m in found[1:])]
    if mode == "generated only":
        return {
            "text": made,
            "logprobs": {
                "tokens": [made], "token_logprobs": [-0.1], "top_logprobs": [{made: -0.1}],
                "text_offset": [len(prompt)],
            },
        }  # fmt: skip
    if mode == "none":
        return {"text": prompt + made, "logprobs": None}
    if mode == "null":
        values = [None] * len(values)
    offsets = [m.start() for m in found]
    if mode == "begins":  # with a token that is not in the text
        texts, values, offsets = ["<s>", *texts], [None, -1.0, *values[1:]], [0, *offsets]
    top = [None if v is None else {t: v, "?": -1.0} for t, v in zip(texts, values, strict=True)]
    if mode == "odd pieces":  # bytes of one letter come as two unreadable tokens
        texts = [t.replace("+", "\ufffd") for t in texts]
    return {
        "text": prompt + made,
        "logprobs": {
            "tokens": [*texts, made], "token_logprobs": [*values, -0.1],
            "top_logprobs": [*top, {made: -0.1}], "text_offset": [*offsets, len(prompt)],
        },
    }  # fmt: skip


@pytest.fixture
def serve():
    running = []

    def start(mode="plain", **about):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply({"data": [{"id": "org/tiny", **about}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if mode == "refuses" and body.get("echo"):
                    self.reply({"error": {"message": "Only no echo is supported"}}, 400)
                elif mode == "not JSON":
                    self.reply("<html>", raw=True)
                else:
                    self.reply({"choices": [completion(body, mode)]})

            def reply(self, content, code=200, raw=False):
                data = (content if raw else json.dumps(content)).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("mode", ["plain", "begins", "odd pieces"])
def test_scores_are_what_the_server_says(serve, mode):
    backend = Server(serve(mode))
    assert backend.model == "tiny"
    self_test(backend)
    [prompt] = Order(TASK, "", "gold", 0).prompts(Plan(), plain())
    [scores], [expected] = backend.score([prompt]), Fake().score([prompt])
    assert [s.nll for s in scores] == pytest.approx([e.nll for e in expected])
    assert [(s.tokens, s.correct) for s in scores] == [(e.tokens, e.correct) for e in expected]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("null", "sent null log-probabilities of the prompt's tokens"),
        ("none", "sent no log-probabilities of the prompt"),
        ("generated only", "log-probabilities of generated tokens, not of the prompt"),
        ("refuses", "answered 400 .*Only no echo is supported.*llama.cpp's own server"),
        ("not JSON", "no answer that can be read"),
    ],
)
def test_servers_that_cannot_are_refused_with_the_reason(serve, mode, words):
    backend = Server(serve(mode))
    with pytest.raises(InputError, match=words):
        self_test(backend)


def test_windows_are_filled_by_what_tokens_take(serve):
    backend = Server(serve(max_model_len=50))
    assert backend.context == 50
    [prompt] = Order(TASK, "", "gold", 0).prompts(Plan(), plain())
    n = backend.fitting(prompt)
    assert 1 <= n < 9
    assert len(WORDS.findall(prompt.first(n).text)) <= 50
    assert Server(serve(), context=1000).fitting(prompt) == 9


def test_windows_are_filled_whatever_was_read_before(serve):
    """Words take few tokens a character, and the self-test's numbers many."""
    words = [f"{'long' * 6} {n}" for n in range(200)]
    task = Task("words", tuple(words), {"": tuple("answer" * 3 for _ in words)})
    [prompt] = Order(task, "", "gold", 0).prompts(Plan(), plain())
    backend = Server(serve(max_model_len=1000))
    self_test(backend)
    read = len(WORDS.findall(prompt.first(backend.fitting(prompt)).text))
    assert 700 < read <= 1000


def test_addresses_that_are_no_servers(serve):
    with pytest.raises(InputError, match="no answer that can be read"):
        Server("http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="serves org/tiny, not other"):
        Server(serve(), model="other")


def test_chat_is_refused(serve):
    with pytest.raises(InputError, match="chat API generates and cannot score a given answer"):
        Server(serve() + "/chat/completions").chat()
