"""Says something over WebSocket and prints the answer."""

import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1]) as connection:
        await connection.send("hello")
        print(await connection.recv())


asyncio.run(main())
