"""A camera over HTTP for the tests: aiohttp's server and its multipart writer.

Prints the port it listens on, then serves until it is killed: /mjpeg and /snapshot for bob with
the password hunter22, /garbage, /page. Each picture is brighter than the one before.
"""

import asyncio
import itertools
import sys

import cv2
import numpy as np
from aiohttp import BasicAuth, MultipartWriter, hdrs, web

COUNT = itertools.count()


def jpeg():
    level = 10 + 8 * next(COUNT) % 240
    return cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8))[1].tobytes()


def check(request):
    given = request.headers.get(hdrs.AUTHORIZATION)
    if given is None or BasicAuth.decode(given) != BasicAuth("bob", "hunter22"):
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="camera"'})


async def mjpeg(request):
    check(request)
    response = web.StreamResponse(
        headers={"Content-Type": "multipart/x-mixed-replace;boundary=frame"}
    )
    await response.prepare(request)
    while True:
        with MultipartWriter("image/jpeg", boundary="frame") as part:
            part.append(jpeg(), {"Content-Type": "image/jpeg"})
        await part.write(response, close_boundary=False)
        await asyncio.sleep(0.03)


async def snapshot(request):
    check(request)
    return web.Response(body=jpeg(), content_type="image/jpeg")


async def garbage(_):
    return web.Response(body=bytes(range(256)), content_type="image/jpeg")


async def page(_):
    return web.Response(text="<p>camera</p>", content_type="text/html")


async def main():
    app = web.Application()
    for path, handler in (
        ("/mjpeg", mjpeg), ("/snapshot", snapshot), ("/garbage", garbage), ("/page", page),
    ):  # fmt: skip
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), reuse_address=True)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
