"""Talks WebSocket through the gateway, plain and encrypted, with a pause and a long message."""

import asyncio
import ssl

import websockets


async def talk(url, **options):
    async with websockets.connect(url, max_size=None, **options) as connection:
        await connection.send("first")
        print(await connection.recv())
        await asyncio.sleep(0.2)
        await connection.send("x" * 200_000)
        print(len(await connection.recv()))


async def main():
    await talk("ws://127.0.0.1:8000/ws")
    here = {"host": "127.0.0.1", "server_hostname": "shop.example"}
    await talk("wss://shop.example:8443/ws", ssl=ssl.create_default_context(cafile="ca.pem"), **here)


asyncio.run(main())
