import pytest
from flask.testing import FlaskClient

from parcels.app import create_app


@pytest.fixture
def client() -> FlaskClient:
    return create_app().test_client()


def test_the_service_is_healthy(client: FlaskClient) -> None:
    assert client.get("/health").get_json() == {"status": "ok"}


def test_a_price_is_told_in_cents(client: FlaskClient) -> None:
    assert client.get("/price?kg=2.5&zone=eu").get_json() == {"cents": 2020}


@pytest.mark.parametrize("query", ["kg=much", "kg=99", "kg=1&zone=moon", ""])
def test_a_wrong_question_gets_a_reason(client: FlaskClient, query: str) -> None:
    reply = client.get(f"/price?{query}")

    assert reply.status_code == 400
    assert reply.get_json()["error"]
