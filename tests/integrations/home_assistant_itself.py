"""Home Assistant with nothing but MQTT, asked by lines of JSON on standard input.

python home_assistant_itself.py FOLDER PORT USER PASSWORD

{"do": "states"} answers every entity's state and attributes, {"do": "call", "domain": ...,
"service": ..., "data": ...} calls a service, {"do": "picture", "entity": ...} gives the size of an
image entity's picture.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from homeassistant import bootstrap, runner

SET_UP = "homeassistant:\n  name: Home\n"


def broker_entry(port: int, user: str, password: str) -> dict[str, Any]:
    """What its settings page would have written for the broker."""
    login = {"broker": "127.0.0.1", "port": port, "username": user, "password": password}
    entry = {
        "entry_id": "broker",
        "version": 1,
        "minor_version": 1,
        "domain": "mqtt",
        "title": "broker",
        "data": {**login, "discovery": True, "discovery_prefix": "homeassistant"},
        "options": {},
        "pref_disable_new_entities": False,
        "pref_disable_polling": False,
        "source": "user",
        "unique_id": None,
        "disabled_by": None,
    }
    key = "core.config_entries"
    return {"version": 1, "minor_version": 1, "key": key, "data": {"entries": [entry]}}


async def answer(home: Any, ask: dict[str, Any]) -> Any:
    if ask["do"] == "call":
        await home.services.async_call(ask["domain"], ask["service"], ask["data"], blocking=True)
        return None
    if ask["do"] == "picture":
        from homeassistant.components.image import DOMAIN

        entity = home.data[DOMAIN].get_entity(ask["entity"])
        return len(await entity.async_image() or b"")
    said = {
        state.entity_id: {"state": state.state, **state.attributes}
        for state in home.states.async_all()
    }
    return json.loads(json.dumps(said, default=str))


async def main(folder: str, port: str, user: str, password: str) -> None:
    stored = Path(folder, ".storage")
    stored.mkdir(parents=True)
    Path(folder, "configuration.yaml").write_text(SET_UP)
    entry = json.dumps(broker_entry(int(port), user, password))
    (stored / "core.config_entries").write_text(entry)
    home = await bootstrap.async_setup_hass(
        runner.RuntimeConfig(
            config_dir=folder,
            skip_pip=not os.environ.get("EDGECAP_HOME_ASSISTANT_INSTALLS"),
            verbose=False,
        )
    )
    assert home is not None
    await home.async_start()
    await home.async_block_till_done()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answer(home, json.loads(line))), flush=True)
    await home.async_stop()


asyncio.run(main(*sys.argv[1:]))
