"""Numbers out of an application's own metrics."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trunkline.adapters.metric_providers.app import AppMetrics, read, selector
from trunkline.model.deliveries import Metric
from trunkline.model.errors import ConfigError, OutsideError

PAGE = """# HELP orders_total Orders.
# TYPE orders_total counter
orders_total{state="kept",shop="a"} 90.0
orders_total{state="lost",shop="a"} 7.0
orders_total{state="lost",shop="b"} 3.0
# TYPE broken gauge
broken NaN
# TYPE seconds histogram
seconds_bucket{route="/",le="0.1"} 60
seconds_bucket{route="/",le="0.5"} 95
seconds_bucket{route="/",le="+Inf"} 100
seconds_bucket{route="/x",le="0.1"} 0
seconds_bucket{route="/x",le="0.5"} 0
seconds_bucket{route="/x",le="+Inf"} 10
seconds_sum 12.5
seconds_count 110
"""


@pytest.mark.parametrize(
    ("bad", "count"),
    [
        ('orders_total{state="lost"}', 10.0),
        ('orders_total{state="lost",shop="a"}', 7.0),
        ('orders_total{state=~"lo.*", shop!="a",}', 3.0),
        ('orders_total{state!~"kept|lost"}', 0.0),
        ('orders{state="lost"}', 10.0),
        ('orders_total{other=""}', 100.0),
        ("nothing_of_the_kind", 0.0),
        ("broken", 0.0),
    ],
)
def test_selectors_mean_what_they_mean_to_prometheus(bad: str, count: float) -> None:
    assert read(PAGE, Metric("orders", requests="orders_total", bad=bad)) == (100.0, count)


@pytest.mark.parametrize("text", ["", "a b", "a{b}", 'a{b="c}', 'a{b=~"("}', "a{b=c}", '1a{b="c"}'])
def test_what_is_no_selector_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ConfigError, match=r"selects no metric|is no condition|is no pattern"):
        selector(text)


@pytest.mark.parametrize(
    ("which", "slower", "counted"),
    [('seconds{route="/"}', 0.1, (100, 40)), ('seconds{route="/"}', 0.2, (100, 5)), ("seconds", 0.5, (110, 15))],
)
def test_a_histogram_tells_what_was_slower(which: str, slower: float, counted: tuple[float, float]) -> None:
    assert read(PAGE, Metric("slow", histogram=which, slower=slower)) == counted


def test_a_metric_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no visits on /metrics"):
        read(PAGE, Metric("visits", requests="visits", bad="visits"))
    with pytest.raises(ConfigError, match="there is no histogram visits"):
        read(PAGE, Metric("visits", histogram="visits", slower=1.0))


@contextmanager
def application(page: list[str]) -> Iterator[str]:
    """Serve what the list holds at the moment."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if page[0] else 500)
            self.end_headers()
            self.wfile.write(page[0].encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_what_has_grown_is_counted_and_an_instance_that_began_anew_from_nought() -> None:
    metric = Metric("orders", requests="orders_total", bad='orders_total{state="lost"}')
    source, page = AppMetrics(), [PAGE]
    with application(page) as one:
        assert source.grown("/e", metric, {1: [one]}, 0.0) == {}, "the first look only begins to count"
        page[0] = PAGE.replace("90.0", "95.0").replace(" 7.0", " 8.0")
        assert source.grown("/e", metric, {1: [one]}, 1.0) == {1: (6, 1)}
        page[0] = 'orders_total{state="lost"} 2.0\n'
        assert source.grown("/e", metric, {1: [one]}, 2.0) == {1: (2, 2)}
        assert source.grown("/other", metric, {1: [one]}, 2.0) == {}, "another environment counts for itself"
        page[0] = ""
        with pytest.raises(OutsideError, match="500"):
            source.grown("/e", metric, {1: [one]}, 3.0)
