"""Signing in to the page at /ui: who is let in, by which cookie, and what it is good for."""

from __future__ import annotations

import pytest
from api.conftest import Api, error_of
from api.visitor import PAGES, Visitor

pytestmark = pytest.mark.anyio


@pytest.fixture
def admin(api: Api) -> str:
    return api.store.keys.create("default", ("admin",)).key


@pytest.fixture
async def task(api: Api) -> str:
    await api.put("e2e")
    return "e2e"


async def test_a_key_becomes_a_cookie_of_the_page_alone(api: Api, admin: str) -> None:
    answer = await Visitor(api).sign_in(f" {admin}\n")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui")
    value, *attributes = answer.headers["set-cookie"].split("; ")
    assert value == f"prefixmux_key={admin}"
    assert set(attributes) == {"HttpOnly", "Path=/ui", "SameSite=strict"}
    assert "Tasks" in (await Visitor(api, admin).get("/ui")).text


async def test_the_cookie_is_secure_where_the_browser_says_so(api: Api, admin: str) -> None:
    """A header of a proxy may be anybody's."""
    behind_tls = await Visitor(api).sign_in(admin, origin="https://test")
    assert "Secure" in behind_tls.headers["set-cookie"]
    told = await Visitor(api).sign_in(admin, **{"x-forwarded-proto": "https"})
    assert "Secure" not in told.headers["set-cookie"]


@pytest.mark.parametrize("key", ["pmx_nobody", "", "x" * 3000, "ключ", "a\nb", "pmx_\x00"])
async def test_a_wrong_key_is_told_so(api: Api, admin: str, key: str) -> None:
    answer = await Visitor(api).sign_in(key)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers
    assert "This is no key of this server" in answer.text
    assert key == "" or key not in answer.text


async def test_what_is_no_form_is_refused(api: Api, admin: str) -> None:
    for body, headers in [
        (b"{}", {"content-type": "application/json"}),
        (b"key=" + b"x" * 5000, {"content-type": "application/x-www-form-urlencoded"}),
        (b"", {}),
    ]:
        answer = await api.client.post("/ui/sign-in", content=body, headers=headers)
        assert answer.status_code in (401, 413, 415), answer.text
        assert "set-cookie" not in answer.headers
    twice = f"key={admin}&key={admin}".encode()
    form = {"content-type": "application/x-www-form-urlencoded"}
    error_of(await api.client.post("/ui/sign-in", content=twice, headers=form), 401, "unauthorized")


async def test_without_a_key_every_page_is_the_way_in(api: Api, admin: str) -> None:
    """Whole in itself, since nothing else can be fetched, and the same whatever was asked for."""
    bodies = set()
    for visitor in (Visitor(api), Visitor(api, "pmx_nobody"), Visitor(api, admin[:-1])):
        for path in [*PAGES, "/ui/nothing"]:
            answer = await visitor.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            bodies.add(answer.content)
    (body,) = bodies
    assert b"/ui/static" not in body
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]


async def test_a_link_from_elsewhere_is_followed_once_more(api: Api, admin: str) -> None:
    """The browser keeps the cookie back until the page itself asks, which it does once."""
    refresh = '<meta http-equiv="refresh" content="0">'
    assert refresh in (await Visitor(api).get("/ui", **{"sec-fetch-site": "cross-site"})).text
    for site in ("same-origin", "none"):
        assert refresh not in (await Visitor(api).get("/ui", **{"sec-fetch-site": site})).text


async def test_scripts_are_answered_as_the_api_answers(api: Api, admin: str) -> None:
    for path in ("/ui/api/live", "/ui/static/app.css", "/prefixes"):
        error_of(await Visitor(api).get(path), 401, "unauthorized")
    error_of(await api.client.get("/ui"), 401, "unauthorized")


async def test_the_cookie_is_nothing_to_the_api(api: Api, admin: str) -> None:
    visitor = Visitor(api, admin)
    assert (await visitor.get("/ui/api/prefixes")).status_code == 200
    for path in ("/prefixes", "/usage", "/metrics", "/uix", "/ui2/api/prefixes", "/v1/models"):
        assert (await visitor.get(path)).status_code == 401, path
    answer = await visitor.post("/generate", {"input": "a"})
    error_of(answer, 401, "unauthorized")


async def test_a_revoked_key_is_no_key(api: Api, admin: str) -> None:
    created = api.store.keys.create("default", ("admin",))
    api.store.keys.revoke(created.record.id)
    assert (await Visitor(api, created.key).get("/ui")).status_code == 401
    assert (await Visitor(api).sign_in(created.key)).status_code == 401


async def test_signing_out_forgets_the_cookie(api: Api, admin: str) -> None:
    answer = await Visitor(api, admin).post("/ui/sign-out", None)
    assert answer.status_code == 303
    gone = answer.headers["set-cookie"]
    assert gone.startswith('prefixmux_key="";') and "Max-Age=0" in gone and "Path=/ui" in gone


async def test_other_sites_reach_nothing(api: Api, admin: str) -> None:
    visitor, body = Visitor(api, admin), {"input": "a"}
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "http://test:81"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
    ):
        error_of(await visitor.post("/ui/api/generate", body, **headers), 403, "forbidden")
        assert (await visitor.sign_in(admin, **headers)).status_code == 403
    same = {"origin": "http://test", "sec-fetch-site": "same-origin"}
    assert (await visitor.post("/ui/api/generate", body, **same)).status_code == 200


async def test_an_open_server_has_no_way_in(api: Api, task: str) -> None:
    for path in PAGES:
        answer = await Visitor(api).get(path)
        assert answer.status_code == 200
        assert "Sign out" not in answer.text
    assert "set-cookie" not in (await Visitor(api).sign_in("anything")).headers
