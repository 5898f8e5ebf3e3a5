"""Captions over HTTP: post photographs, then follow a camera's events.

python examples/serve_client.py photo.jpg [ADDRESS]

Without an address, such as http://127.0.0.1:8765, it starts a server of its own whose camera is
drawn. A token is taken from EDGECAP_TOKEN.
"""

import asyncio
import json
import os
import subprocess
import sys

import aiohttp

EVENTS = 3


async def main(photo: str, address: str) -> None:
    token = os.environ.get("EDGECAP_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(address, headers=headers) as session:
        with open(photo, "rb") as picture:
            form = aiohttp.FormData({"picture": picture})
            async with session.post("/v1/caption?beams=4", data=form) as response:
                answer = await response.json()
        if response.status != 200:
            sys.exit(answer["error"])
        took = answer["latency_ms"]["total"]
        print(f"{photo}: {answer['text']} ({answer['confidence']:.2f}, {took:.0f} ms)")
        await session.post("/v1/describe")
        async with session.get("/v1/events") as response:
            kind, left = "", EVENTS
            async for raw in response.content:
                name, _, value = raw.decode().strip().partition(": ")
                if name == "event":
                    kind = value
                if name != "data" or kind != "caption":
                    continue
                event = json.loads(value)
                print(f"{event['source']}: {event['text']} [{event['latency_ms']['total']:.0f} ms]")
                left -= 1
                if left == 0:
                    return


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give a photograph")
    if len(sys.argv) > 2:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    else:
        command = [sys.executable, "-m", "edgecap", "serve", "--port", "0"]
        command += ["--source", "test://moving", "--gate", "none", "--min-interval", "0.2"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            line = server.stderr.readline()
            try:
                asyncio.run(main(sys.argv[1], line.split()[-1]))
            finally:
                server.terminate()
