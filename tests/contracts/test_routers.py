"""Each router keeps the contract."""

import pytest

from trunkline.adapters.traffic_routers.envoy import EnvoyRouter
from trunkline.adapters.traffic_routers.haproxy import HaproxyRouter
from trunkline.adapters.traffic_routers.traefik import TraefikRouter
from trunkline.ports.delivery import TrafficRouter
from trunkline.testing.contracts.router import RouterContract, found


@pytest.mark.real
class TestHaproxy(RouterContract):
    """By its runtime API."""

    @pytest.fixture
    def router(self) -> TrafficRouter:
        return found(HaproxyRouter())


@pytest.mark.real
class TestEnvoy(RouterContract):
    """By its runtime."""

    @pytest.fixture
    def router(self) -> TrafficRouter:
        return found(EnvoyRouter())


@pytest.mark.real
class TestTraefik(RouterContract):
    """By its file provider."""

    wrong_at_start = "404"

    @pytest.fixture
    def router(self) -> TrafficRouter:
        return found(TraefikRouter())
