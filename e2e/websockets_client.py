"""Drives one connection of the Python package "websockets" by lines; ws/client.js says how.

    python3 websockets_client.py URL [HEADER=VALUE]...
"""
import asyncio
import base64
import json
import os
import sys

import websockets


def tell(ev, **more):
    sys.stdout.write(json.dumps({"ev": ev, **more}) + "\n")
    sys.stdout.flush()


async def ping(ws, data):
    await (await ws.ping(data))
    tell("pong", data=data)


async def obey(ws):
    loop = asyncio.get_running_loop()
    pings = set()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        o = json.loads(line)
        data = o.get("data")
        try:
            if o["op"] == "text":
                await ws.send(data)
            elif o["op"] == "binary":
                await ws.send(base64.b64decode(data))
            elif o["op"] == "fragments":
                await ws.send(iter(data))
            elif o["op"] == "ping":
                pings.add(asyncio.create_task(ping(ws, data)))
            elif o["op"] == "close":
                await ws.close(o["code"], o["reason"])
        except websockets.ConnectionClosed:
            pass  # told by the reader
        except Exception as err:  # a fault of this driver must be seen, whatever it is
            tell("fault", data=repr(err))
    os._exit(0)  # like a process that is ended: no Close, and nothing waits


async def main(url, *headers):
    pairs = [h.split("=", 1) for h in headers]
    try:
        # Its own pings are off: the server's are what is tested.
        offers = json.loads(os.environ.get("SUBPROTOCOLS", "null"))
        ws = await websockets.connect(url, extra_headers=pairs, ping_interval=None, max_size=None, subprotocols=offers)
    except websockets.InvalidStatusCode as err:
        return tell("refused", status=err.status_code)
    except Exception as err:
        return tell("fault", data=repr(err))
    tell("open", data=",".join(e.name for e in ws.extensions), reason=ws.subprotocol or "")
    orders = asyncio.create_task(obey(ws))
    try:
        while True:
            message = await ws.recv()
            if isinstance(message, bytes):
                tell("binary", data=base64.b64encode(message).decode())
            else:
                tell("text", data=message)
    except websockets.ConnectionClosed:
        tell("close", code=ws.close_code, reason=ws.close_reason)
    await orders


asyncio.run(main(*sys.argv[1:]))
