"""A pod that says its name over HTTP, HTTPS, WebSocket, TCP and UDP."""

import asyncio
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import websockets

NAME, CERTIFICATE, KEY = sys.argv[1:]


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        body = NAME.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        self.transport.sendto(f"{NAME}: ".encode() + data, client)


async def talk(connection):
    async for message in connection:
        await connection.send(f"{NAME}: {message}")


async def echo(reader, writer):
    async for line in reader:
        writer.write(f"{NAME}: ".encode() + line)
    writer.close()


async def main():
    plain, sealed = (ThreadingHTTPServer(("", port), Web) for port in (9376, 8443))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, KEY)
    sealed.socket = context.wrap_socket(sealed.socket, server_side=True)
    for server in (plain, sealed):
        Thread(target=server.serve_forever, daemon=True).start()
    await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", 9376))
    await asyncio.start_server(echo, "0.0.0.0", 2701)
    async with websockets.serve(talk, "0.0.0.0", 8081):
        await asyncio.Future()


asyncio.run(main())
