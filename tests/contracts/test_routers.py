"""Each router keeps the contract."""

import pytest

from trunkline.adapters.traffic_routers.envoy import EnvoyRouter
from trunkline.adapters.traffic_routers.haproxy import HaproxyRouter
from trunkline.adapters.traffic_routers.traefik import TraefikRouter
from trunkline.model.errors import OutsideError
from trunkline.testing.contracts.router import RouterContract


@pytest.mark.real
class TestHaproxy(RouterContract):
    """By its runtime API."""

    @pytest.fixture
    def router(self) -> HaproxyRouter:
        made = HaproxyRouter()
        try:
            made.find()
        except OutsideError as missing:
            pytest.skip(f"{missing.message}: {missing.hint}")
        return made


@pytest.mark.real
class TestEnvoy(RouterContract):
    """By its runtime."""

    @pytest.fixture
    def router(self) -> EnvoyRouter:
        made = EnvoyRouter()
        try:
            made.find()
        except OutsideError as missing:
            pytest.skip(f"{missing.message}: {missing.hint}")
        return made


@pytest.mark.real
class TestTraefik(RouterContract):
    """By its file provider."""

    wrong_at_start = "404"

    @pytest.fixture
    def router(self) -> TraefikRouter:
        made = TraefikRouter()
        try:
            made.find()
        except OutsideError as missing:
            pytest.skip(f"{missing.message}: {missing.hint}")
        return made
