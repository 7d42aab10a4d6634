"""Both clients and the program against a real server, with the model of the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest
from api.served import Served, environment, until

import prefixmux
from prefixmux import AsyncClient, Client, GenerateRequest, Timeline

DEMO = Path(__file__).parents[2] / "demo"
PROMPT = "name : Aromi | eatType : pub =>"
LONG = 400


@pytest.fixture
def server(demo_server: Served) -> Served:
    return demo_server


@pytest.fixture
def address(server: Served) -> str:
    return str(server.client.base_url).rstrip("/")


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, api_key="not asked for") as made:
        yield made


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def timeline(client: Client, request_id: str | None) -> Timeline:
    """Of a request that ends about now."""
    found: list[Timeline] = []

    def ended() -> bool:
        try:
            found.append(client.timeline(request_id or ""))
        except prefixmux.NotFoundError:
            return False
        return True

    until(ended)
    return found[0]


def test_a_stream_joins_to_the_answer_that_generate_gives(client: Client) -> None:
    whole = client.generate("e2e", PROMPT, max_new_tokens=30)
    with client.stream("e2e", PROMPT, max_new_tokens=30) as stream:
        events = list(stream)
    assert stream.response.outputs == whole.outputs
    assert "".join(event.text or "" for event in events) == whole.text
    tokens = tuple(token for event in events for token in event.token_ids)
    assert tokens == whole.outputs[0].token_ids
    assert len(events) > 3
    assert stream.response.request_id == stream.request_id


def test_samples_stream_side_by_side_with_log_probabilities(client: Client) -> None:
    with client.stream(
        "e2e", PROMPT, n=3, temperature=1.0, seed=7, logprobs=2, max_new_tokens=8
    ) as stream:
        texts = dict.fromkeys(range(3), "")
        for event in stream:
            texts[event.index] += event.text or ""
            assert len(event.logprobs or ()) == len(event.token_ids)
    answer = stream.response
    assert [output.text for output in answer.outputs] == list(texts.values())
    for output in answer.outputs:
        assert output.logprobs is not None
        assert [token.token_id for token in output.logprobs] == list(output.token_ids)
        assert all(len(token.top) == 2 and token.logprob <= 0 for token in output.logprobs)


def test_prompts_have_log_probabilities(client: Client) -> None:
    answer = client.generate("e2e", PROMPT, max_new_tokens=1, prompt_logprobs=1)
    assert answer.prompt_logprobs is not None
    assert answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens


def test_leaving_a_stream_frees_its_row(client: Client) -> None:
    with client.stream("e2e", PROMPT, max_new_tokens=LONG, ignore_eos=True) as stream:
        next(stream)
    told = timeline(client, stream.request_id)
    assert told.outcome == "cancelled"
    assert told.generated_tokens < LONG


def test_a_whole_stream_is_no_cancelled_request(client: Client) -> None:
    with client.stream("e2e", PROMPT, max_new_tokens=4) as stream:
        stream.until_done()
    told = timeline(client, stream.response.id)
    assert (told.outcome, told.request_id) == ("ok", stream.request_id)
    assert told.decode.steps > 0


def test_a_deadline_is_an_error_of_its_class(client: Client) -> None:
    with (
        pytest.raises(prefixmux.GatewayTimeoutError),
        client.stream(
            "e2e", PROMPT, max_new_tokens=LONG, ignore_eos=True, timeout_s=0.05
        ) as stream,
    ):
        stream.until_done()


def test_the_likeliest_target_is_what_the_task_says(client: Client) -> None:
    said = client.generate("e2e", PROMPT, max_new_tokens=5).outputs[0].token_ids
    answer = client.score("e2e", PROMPT, [said, said[::-1]])
    assert answer.best.index == 0
    assert answer.best.is_greedy
    assert answer.best.logprob == pytest.approx(sum(each.logprob for each in answer.best.logprobs))


def test_a_pinned_version_says_so(client: Client) -> None:
    assert client.prefixes.pin("hotel").pinned
    active = client.prefixes.get("hotel").active
    assert active is not None
    assert active.pinned
    assert not client.prefixes.unpin("hotel", 1).pinned


def test_an_upload_comes_back_as_it_is_kept(client: Client, tmp_path: Path) -> None:
    sent: list[tuple[int, int]] = []
    folder = DEMO / "prefixes" / "tv"
    stored = client.prefixes.upload("tv", folder, progress=lambda *moved: sent.append(moved))
    assert sent[-1][0] == sent[-1][1]
    assert client.prefixes.upload("tv", folder) == stored
    path = tmp_path / "tv.safetensors"
    got: list[tuple[int, int]] = []
    client.prefixes.download("tv", path, progress=lambda *moved: got.append(moved))
    assert got[-1] == (stored.bytes, stored.bytes)
    assert client.prefixes.upload("again", path).prefix_digest == stored.prefix_digest


def test_usage_counts_the_tasks(client: Client) -> None:
    answer = client.generate("hotel", "inform ( name = the opal ) =>", max_new_tokens=3)

    def counted() -> bool:
        items = {item.task_id: item for item in client.usage().items}
        return "hotel" in items and items["hotel"].generated_tokens >= 3

    until(counted)
    assert client.usage().tenant == answer.tenant


@pytest.mark.anyio
async def test_the_awaited_client_runs_streams_and_pieces_at_once(address: str) -> None:
    rows = [GenerateRequest("e2e", PROMPT, parameters={"max_new_tokens": 2})] * 300
    texts: list[str] = []

    async with AsyncClient(address) as client:

        async def streamed() -> None:
            async with client.stream("hotel", PROMPT, max_new_tokens=8) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            assert text == stream.response.text
            texts.append(text)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(streamed)
        answers = await client.generate_many(rows)
        async with client.stream("e2e", PROMPT, max_new_tokens=LONG, ignore_eos=True) as stream:
            await anext(stream)
    assert len(set(texts)) == 1
    assert len({row.unwrap().text for row in answers}) == 1
    assert len(answers) == 300


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefixmux.cli", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_program_streams_what_generate_says(client: Client, address: str) -> None:
    line = ("generate", "e2e", PROMPT, "--max-new-tokens", "12", "--server", address)
    whole, streamed = run(*line), run(*line, "--stream")
    assert (streamed.returncode, streamed.stderr) == (0, "")
    assert streamed.stdout == whole.stdout


def test_the_program_finds_the_server_fit(address: str, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    done = run("doctor", "--server", address, "--store", store, "--port", "0", "--json")
    assert done.returncode == 0, done.stdout
    said = {each["check"]: each["message"] for each in json.loads(done.stdout)["findings"]}
    assert said["server"] == f"{address} is ready"
    assert said["key"] == "may generate, read, write"


def test_a_server_that_went_away_is_unreachable(server: Served) -> None:
    with Client("http://127.0.0.1:9", max_retries=0) as client:
        with pytest.raises(prefixmux.APIConnectionError):
            client.version()
        with pytest.raises(prefixmux.APIConnectionError), client.stream(None, "x"):
            pytest.fail("nobody listens there")
    assert server.client.get("/health/live").status_code == httpx2.codes.OK
