"""Named keys in a running appliance: made, limited and revoked without a restart."""

from pathlib import Path

import httpx
import pytest

from appliance.clientkeys import add_key, revoke_key
from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.appliances import ASKED, CHAT, LONG, NO_TLS, WITHIN_S
from tests.engines import MODEL


def client(box: Appliance, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=box.running.base_url,
        headers={"authorization": f"Bearer {key}"},
        timeout=WITHIN_S,
        trust_env=False,
        verify=NO_TLS,
    )


def keys_of(box: Appliance) -> Path:
    return box.running.settings.state_dir / "client_keys.toml"


async def counts(http: httpx.AsyncClient, status: int) -> None:
    async def there() -> bool:
        return (await http.get("/v1/models")).status_code == status

    await eventually(there, f"{status} for this key")


async def test_a_key_opens_and_is_shut_again_while_the_appliance_runs(
    start: StartAppliance,
) -> None:
    box = await start()
    key = add_key(keys_of(box), "laptop")
    async with client(box, key) as http:
        await counts(http, 200)
        revoke_key(keys_of(box), "laptop")
        await counts(http, 401)
    assert (await box.client.get("/v1/models")).status_code == 200


async def test_a_replaced_key_ends_and_the_new_one_has_its_name(start: StartAppliance) -> None:
    box = await start()
    old = add_key(keys_of(box), "laptop")
    async with client(box, old) as before:
        await counts(before, 200)
        new = add_key(keys_of(box), "laptop", replace=True)
        await counts(before, 401)
    async with client(box, new) as after:
        assert (await after.post(CHAT, json=ASKED)).status_code == 200
    asked = await box.metric("appliance_requests_by_key_total", key="laptop", outcome="ok")
    assert asked >= 2  # once for the models, once for the answer


async def test_a_key_at_its_limit_gets_429_with_retry_after_and_others_pass(
    start: StartAppliance,
) -> None:
    box = await start(max_num_seqs=4)
    key = add_key(keys_of(box), "ci", max_running=1, max_waiting=0)
    async with client(box, key) as http:
        await counts(http, 200)
        async with http.stream("POST", CHAT, json=LONG | {"stream": True}) as first:
            assert first.status_code == 200
            second = await http.post(CHAT, json=ASKED)
            other = await box.client.post(CHAT, json=ASKED)
            status = (await box.operator.get("/appliance/v1/status")).json()
    assert (second.status_code, second.json()["error"]["code"]) == (429, "key_queue_full")
    assert int(second.headers["retry-after"]) > 0
    assert other.status_code == 200
    assert status["requests"]["by_key"] == {"ci": {"running": 1, "waiting": 0}}


async def test_metrics_and_log_name_keys_and_never_hold_one(
    start: StartAppliance, capsys: pytest.CaptureFixture[str]
) -> None:
    box = await start()
    key = add_key(keys_of(box), "laptop")
    async with client(box, key) as http:
        await counts(http, 200)
        await http.post(CHAT, json={"model": MODEL, **ASKED})
    text = (await box.client.get("/metrics")).text
    seen = text + "".join(capsys.readouterr())
    assert 'key="laptop"' in text
    for secret in (key, box.running.keys.client, box.running.keys.operator):
        assert secret not in seen


async def test_a_file_of_keys_elsewhere_is_a_setting(start: StartAppliance, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    key = add_key(path, "laptop")
    box = await start(client_keys=path)
    async with client(box, key) as http:
        assert (await http.get("/v1/models")).status_code == 200
