"""The example `examples/flask_shop`, as it is shown, over a threaded HTTP server."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers import exchange, modern, post, serving

pytest.importorskip("flask", reason="flask is not installed")
pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")

FORMS = {"elicitation": {}}


class Shop:
    def __init__(self, app: Any, url: str, tokens: dict[str, str]) -> None:
        self.app, self.url, self.tokens = app, url, tokens

    def call(self, who: str, name: str, arguments: Any = None, **more: Any) -> tuple[int, Any]:
        message = modern("tools/call", capabilities=FORMS, name=name, arguments=arguments or {}, **more)
        return post(self.url, message, Authorization=f"Bearer {self.tokens[who]}")

    def ask(self, who: str, product: str, quantity: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an order; returns the arguments and the result with the question."""
        arguments = {"product": product, "quantity": quantity}
        status, reply = self.call(who, "place_order", arguments)
        assert (status, reply["result"]["resultType"]) == (200, "input_required")
        return arguments, reply["result"]

    def answer(self, who: str, arguments: Any, asked: Any, answer: Any) -> tuple[int, Any]:
        responses = dict.fromkeys(asked["inputRequests"], answer)
        return self.call(who, "place_order", arguments, requestState=asked["requestState"], inputResponses=responses)


YES = {"action": "accept", "content": {"confirm": True}}


@pytest.fixture
def shop(tmp_path: Any, monkeypatch: Any) -> Iterator[Shop]:
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent.parent / "examples"))
    import flask_shop

    # Twenty orders at once wait for each other, and each for the disk.
    app = flask_shop.create_app(DATABASE=f"sqlite:///{tmp_path / 'shop.db'}?timeout=60")
    output = app.test_cli_runner().invoke(args=["init-db"]).output
    tokens = dict(line.split(": ") for line in output.splitlines())
    with serving(app) as url:
        yield Shop(app, url + "/mcp", tokens)
    flask_shop.models.db.remove()
    flask_shop.models.db.get_bind().dispose()


def test_without_a_login_the_shop_says_401(shop: Shop) -> None:
    with exchange(shop.url, modern("tools/list"), {"Content-Type": "application/json"}) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_login_in_the_browser_serves_as_well_as_a_token(shop: Shop) -> None:
    client = shop.app.test_client()
    assert client.post("/login", data={"name": "ann", "password": "ann's password"}).status_code in (302, 303)
    message = modern("tools/call", name="my_orders", arguments={})
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "my_orders"}
    assert client.post("/mcp", json=message, headers=headers).get_json()["result"]["structuredContent"] == []
    strange = {**headers, "Origin": "http://evil.example"}
    assert client.post("/mcp", json=message, headers=strange).status_code == 403


def test_an_order_is_placed_once_the_user_has_confirmed_it(shop: Shop) -> None:
    arguments, asked = shop.ask("ann", "cup", 2)
    (question,) = asked["inputRequests"].values()
    assert question["params"]["message"] == "Order 2 x cup for 12.00?"
    assert shop.call("ann", "my_orders")[1]["result"]["structuredContent"] == []
    status, reply = shop.answer("ann", arguments, asked, YES)
    assert status == 200
    assert reply["result"]["structuredContent"] == {
        "ordered": True,
        "user": "ann",
        "id": 1,
        "product": "cup",
        "quantity": 2,
    }
    again = shop.answer("ann", arguments, asked, YES)[1]["result"]["structuredContent"]
    assert again["id"] == 1
    assert len(shop.call("ann", "my_orders")[1]["result"]["structuredContent"]) == 1
    assert shop.call("bob", "my_orders")[1]["result"]["structuredContent"] == []
    page = shop.app.test_client().get("/", headers={"Authorization": f"Bearer {shop.tokens['ann']}"})
    assert "<li>2 x cup</li>" in page.text


@pytest.mark.parametrize("answer", [{"action": "decline"}, {"action": "accept", "content": {"confirm": False}}])
def test_nothing_is_ordered_without_a_yes(shop: Shop, answer: Any) -> None:
    arguments, asked = shop.ask("ann", "cup", 2)
    assert shop.answer("ann", arguments, asked, answer)[1]["result"]["structuredContent"] == {"ordered": False}
    assert shop.call("ann", "my_orders")[1]["result"]["structuredContent"] == []


def test_nobody_can_answer_for_somebody_else(shop: Shop) -> None:
    arguments, asked = shop.ask("ann", "cup", 2)
    status, reply = shop.answer("bob", arguments, asked, YES)
    assert (status, reply["error"]["code"]) == (400, -32602)


def test_the_turnover_exists_for_managers_only(shop: Shop) -> None:
    def names(who: str) -> list[str]:
        reply = post(shop.url, modern("tools/list"), Authorization=f"Bearer {shop.tokens[who]}")[1]
        return [tool["name"] for tool in reply["result"]["tools"]]

    arguments, asked = shop.ask("ann", "kettle", 2)
    shop.answer("ann", arguments, asked, YES)
    assert names("ann") == ["products", "my_orders", "place_order"]
    assert names("eve") == ["products", "my_orders", "place_order", "turnover"]
    status, reply = shop.call("ann", "turnover")
    assert (status, reply["error"]["code"]) == (400, -32602)
    assert shop.call("eve", "turnover")[1]["result"]["structuredContent"] == [{"user": "ann", "total": 78.0}]


def test_a_product_that_does_not_exist_is_told_to_the_model(shop: Shop) -> None:
    result = shop.call("ann", "place_order", {"product": "moon", "quantity": 1})[1]["result"]
    assert result["isError"] is True
    assert result["content"][0]["text"] == "There is no product 'moon'; call products for what there is"


def test_twenty_calls_at_once_as_two_users_are_each_attributed_to_the_right_one(shop: Shop) -> None:
    start = threading.Barrier(20)

    def order(number: int) -> None:
        who = "ann" if number % 2 else "bob"
        start.wait(60)
        arguments, asked = shop.ask(who, "cup", number + 1)
        start.wait(60)
        placed = shop.answer(who, arguments, asked, YES)[1]["result"]["structuredContent"]
        assert (placed["user"], placed["quantity"]) == (who, number + 1)
        start.wait(60)
        mine = shop.call(who, "my_orders")[1]["result"]["structuredContent"]
        assert sorted(each["quantity"] for each in mine) == list(range(2 if number % 2 else 1, 21, 2))

    with ThreadPoolExecutor(20) as pool:
        for done in [pool.submit(order, number) for number in range(20)]:
            done.result(200)


def test_no_database_session_is_left_on_a_worker_thread(shop: Shop) -> None:
    import flask_shop.models

    shop.ask("ann", "cup", 1)
    pool = flask_shop.models.db.get_bind().pool
    assert pool.checkedout() == 0
