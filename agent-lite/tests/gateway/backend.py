"""What stands behind the gateway in the tests: HTTP on 8080, WebSocket on 8081, TCP on 7 and UDP on 5353 of one address."""

import asyncio
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, NAME = sys.argv[1:]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""
        while "transfer-encoding" in self.headers:
            size = int(self.rfile.readline().strip(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                break
        return body

    def answer(self):
        length = len(self.body())
        if "/slow" in self.path:
            time.sleep(3)
        if "/fails" in self.path and NAME == "one":
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if "/cut" in self.path:
            self.send_response(200)
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
            return
        if "/hang" in self.path:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"4\r\npart\r\n")
            # Until nobody wants the rest.
            self.rfile.read(1)
            return
        if "/once" in self.path:
            # A connection that breaks while the second request is worked on.
            if getattr(self, "served", False):
                open(f"again-{NAME}", "a").write("x")
                self.close_connection = True
                return
            self.served = True
        if "/big" in self.path:
            self.send_response(200)
            self.send_header("content-length", str(20_000_000))
            self.end_headers()
            for _ in range(200):
                self.wfile.write(b"x" * 100_000)
            return
        if "/chunks" in self.path:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for i in range(3):
                self.wfile.write(b"5\r\npart%d\r\n" % i)
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = {"backend": NAME, "method": self.command, "path": self.path, "headers": headers, "length": length}
        text = json.dumps(said).encode()
        if "mirrored" in self.path:
            open(f"mirrored-{NAME}", "wb").write(text)
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.send_header("x-backend", NAME)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = answer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 200


def udp(server):
    while True:
        data, client = server.recvfrom(65535)
        server.sendto(NAME.encode() + b":" + data, client)


def tcp(server):
    def serve(client):
        # The client says that it is done before it wants to hear anything.
        data = b""
        while part := client.recv(65536):
            data += part
        client.sendall(b"%s got %d" % (NAME.encode(), len(data)))
        client.close()

    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


def websocket():
    import websockets

    async def echo(connection):
        async for message in connection:
            await connection.send(f"{NAME}: {message}")

    async def serve():
        async with websockets.serve(echo, ADDRESS, 8081, max_size=None):
            await asyncio.Future()

    asyncio.run(serve())


datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind((ADDRESS, 5353))
for work in [lambda: udp(datagrams), lambda: tcp(socket.create_server((ADDRESS, 7))), websocket]:
    threading.Thread(target=work, daemon=True).start()
server = Server((ADDRESS, 8080), Handler)
open(f"ready-{NAME}", "w").close()
server.serve_forever()
