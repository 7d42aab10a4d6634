"""The page at /ui without a browser: what each key is shown, and what stays text."""

from __future__ import annotations

import re

import pytest
from api.conftest import Api, error_of
from api.visitor import PAGES, Visitor
from service.fakes import native

from prefixmux_server.api.ui.figures import count, moment, size

pytestmark = pytest.mark.anyio

PLANTED = "<img src=x onerror=alert(1)>"
# What no page may hold: each would need the policy to be weaker.
INLINE = re.compile(r"<script(?![^>]* src=)|\son\w+=|javascript:|\sstyle=", re.IGNORECASE)


@pytest.fixture
def admin(api: Api) -> str:
    return api.store.keys.create("default", ("admin",)).key


@pytest.fixture
async def task(api: Api) -> str:
    await api.put("e2e")
    return "e2e"


@pytest.fixture
async def owned(api: Api, admin: str) -> str:
    """The same where keys are asked for."""
    await api.put("e2e", authorization=f"Bearer {admin}")
    return "e2e"


async def test_every_page_is_strict(api: Api, task: str) -> None:
    for path in [*PAGES, "/ui/nothing", "/ui?nothing=1"]:
        answer = await Visitor(api).get(path)
        policy = answer.headers["content-security-policy"]
        assert policy == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not INLINE.search(answer.text), path
        links = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
        assert all(link.startswith(("/ui", "#", "data:image/svg")) for link in links), links


async def test_a_stored_file_is_never_a_script(api: Api, task: str) -> None:
    answer = await Visitor(api).get("/ui/api/prefixes/e2e/versions/1/file")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_tenants_write_stays_text(api: Api) -> None:
    files = {"file": native()}
    said = {"task_id": "e2e", "description": PLANTED, "template": f"{PLANTED}{{input}}"}
    assert (await api.client.post("/prefixes", files=files, data=said)).status_code == 201
    escaped = "&lt;img src=x onerror=alert(1)&gt;"
    page = (await Visitor(api).get("/ui/tasks/e2e")).text
    assert page.count(escaped) == 2 and PLANTED not in page
    page = (await Visitor(api).get(f"/ui?query={PLANTED}")).text
    assert escaped in page and PLANTED not in page
    page = (await Visitor(api).get(f"/ui?{PLANTED}=1")).text
    assert PLANTED not in page
    page = (await Visitor(api).get(f"/ui/tasks/{PLANTED}")).text
    assert "task_not_found" in page and PLANTED not in page


async def test_pages_show_what_the_key_may_do(api: Api, owned: str) -> None:
    keys = {
        scope: Visitor(api, api.store.keys.create("default", (scope,)).key)
        for scope in ("read", "generate", "write", "admin")
    }
    for scope, acts in (("read", False), ("admin", True)):
        page = (await keys[scope].get("/ui/tasks/e2e")).text
        assert ("data-act" in page) is acts
        assert ('id="upload"' in (await keys[scope].get("/ui")).text) is acts
    for scope in ("generate", "write"):
        answer = await keys[scope].get("/ui")
        assert answer.status_code == 403
        assert "This key has no scope read" in answer.text
    assert ">Playground</a>" in (await keys["generate"].get("/ui")).text
    assert ">Playground</a>" not in (await keys["read"].get("/ui")).text
    assert (await keys["generate"].get("/ui/playground")).status_code == 200


async def test_other_tenants_are_not_there(api: Api, owned: str) -> None:
    visitor = Visitor(api, api.store.keys.create("other", ("admin",)).key)
    assert "No task yet." in (await visitor.get("/ui")).text
    foreign, missing = [await visitor.get(f"/ui/tasks/{name}") for name in ("e2e", "none")]
    assert foreign.status_code == missing.status_code == 404
    known = [answer.headers["x-request-id"] for answer in (foreign, missing)]
    assert foreign.text.replace(known[0], "") == missing.text.replace(known[1], "")


async def test_the_list_is_searched_and_paged(api: Api) -> None:
    data = native()
    for number in range(52):
        await api.put(f"task-{number:02}", data)
    await api.put("else", data)
    seen: list[str] = []
    path = "/ui?query=task"
    while path:
        page = (await Visitor(api).get(path)).text
        seen += re.findall(r'href="/ui/tasks/([^"]+)"', page)
        found = re.search(r'rel="next" href="([^"]*)"', page)
        path = found[1].replace("&amp;", "&") if found else ""
    assert seen == [f"task-{number:02}" for number in range(52)]
    assert "No task has" in (await Visitor(api).get("/ui?query=nothing")).text
    assert (await Visitor(api).get("/ui?cursor=nonsense")).status_code == 422


async def test_the_active_version_comes_first_and_once(api: Api) -> None:
    for fill in range(1, 4):
        await api.put("e2e", native(fill=fill))
    await api.client.post("/prefixes/e2e/activate", json={"version": 2})
    page = (await Visitor(api).get("/ui/tasks/e2e")).text
    assert re.findall(r'<h2 id="v(\d)"', page) == ["2", "1", "3"]
    inactive = {"task_id": "later", "activate": "false"}
    await api.client.post("/prefixes", files={"file": native()}, data=inactive)
    assert "no version is active" in (await Visitor(api).get("/ui")).text


async def test_assets_are_sent_once(api: Api) -> None:
    for name, kind in (("app.css", "text/css"), ("live.js", "text/javascript")):
        first = await Visitor(api).get(f"/ui/static/{name}")
        assert first.headers["content-type"].startswith(kind)
        tag = {"if-none-match": first.headers["etag"]}
        again = await Visitor(api).get(f"/ui/static/{name}", **tag)
        assert (again.status_code, again.content) == (304, b"")
    for name in ("none.css", "..%2frendering.py", "rendering.py", "%2e%2e", "app.css%00.js"):
        error_of(await Visitor(api).get(f"/ui/static/{name}"), 404, "not_found")


async def test_a_server_that_leaves_says_so(api: Api, task: str) -> None:
    api.lifecycle.drain()
    answer = await Visitor(api).get("/ui")
    assert answer.status_code == 503
    assert "shutting down" in answer.text and ">draining</span>" in answer.text


async def test_a_model_that_is_not_there_yet(api: Api, task: str) -> None:
    api.engine.ready = None
    for path in PAGES:
        assert (await Visitor(api).get(path)).status_code == 200


async def test_without_a_tokenizer_input_is_ids(api: Api) -> None:
    assert 'data-ids="false"' in (await Visitor(api).get("/ui/playground")).text
    api.engine.without_tokenizer()
    assert 'data-ids="true"' in (await Visitor(api).get("/ui/playground?task=e2e")).text


async def test_figures_are_for_people() -> None:
    told = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 46_080: "46 kB"}
    told |= {999_499: "999 kB", 999_500: "1.0 MB", 1 << 30: "1.1 GB", 10**16: "10000 TB"}
    assert {number: size(number) for number in told} == told
    assert (count(999), count(1234567)) == ("999", "1\u202f234\u202f567")
    assert str(moment(0)) == '<time datetime="1970-01-01T00:00:00+00:00">1970-01-01 00:00</time>'
