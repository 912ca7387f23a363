#!/usr/bin/env python3
"""The LuCI page in a real browser with LuCI's own scripts.

LUCI_TREE: a checkout of LuCI. CHROMIUM: the browser. SCREENSHOT: a folder for pictures of what was seen, if wanted.
"""

import json
import os
import subprocess
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LUCI = Path(os.environ["LUCI_TREE"])
CHROMIUM = os.environ.get("CHROMIUM", "chromium")
FOLDER = tempfile.TemporaryDirectory(prefix="luci-")
PACKAGE = Path(__file__).resolve().parent.parent / "selvedge"

# What LuCI's header and view templates make of a page.
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>OpenWrt | Selvedge</title>
<link rel="stylesheet" href="/luci-static/bootstrap/cascade.css">
<script>window.TR = {};</script><script src="/luci-static/resources/cbi.js"></script></head>
<body><header><a class="brand" href="/">OpenWrt</a><ul class="nav" id="topmenu"></ul><div id="indicators"></div></header>
<div id="maincontent" class="container"><div id="tabmenu"></div>
<script src="/luci-static/resources/luci.js"></script>
<script>L = new LuCI({ media: '/luci-static/bootstrap', resource: '/luci-static/resources', scriptname: '/cgi-bin/luci',
pathinfo: '/admin/status/selvedge', documentroot: '/www', requestpath: ['admin', 'status', 'selvedge'],
dispatchpath: ['admin', 'status', 'selvedge'], pollinterval: 1, ubuspath: '/ubus/', sessionid: '0', token: 'x',
nodespec: { readonly: true, satisfied: true }, apply_rollback: 90, apply_holdoff: 4, apply_timeout: 5, apply_display: 1.5 });</script>
<script>new MutationObserver(() => fetch('/seen', { method: 'POST', body: JSON.stringify(
{ title: document.title, text: document.body.innerText, html: document.body.innerHTML }) }))
.observe(document, { subtree: true, childList: true, characterData: true });</script>
<div id="view"><div class="spinning">Loading</div>
<script>L.require('ui').then(function(ui) { ui.instantiateView('selvedge/status'); });</script></div></div></body></html>"""

STATUS = {
    "running": True, "name": "beijing.edge-1", "role": "edge", "version": "0.1.0", "datapath": "user",
    "datapathReason": "no ESP in this kernel", "firewall": "nftables",
    "config": {"generation": 7, "source": "file", "error": None}, "certificateNotAfter": 4102444800,
    "peers": [
        {"name": "beijing.connector", "via": "tunnel", "state": "up", "cipher": "ChaCha20-Poly1305", "saAgeSeconds": 3700,
         "path": {"local": "100.64.0.7:4500", "remote": "203.0.113.10:4500", "encap": True},
         "bytesIn": 5000000000, "bytesOut": 1234567, "droppedIn": 3, "droppedOut": 2, "lastError": None},
        {"name": "beijing.edge-2", "via": "tunnel", "state": "connecting", "path": None, "cipher": None, "saAgeSeconds": None,
         "bytesIn": 0, "bytesOut": 0, "droppedIn": 0, "droppedOut": 0, "lastError": "no answer from 203.0.113.22"},
    ],
    "refused": [{"remote": "192.0.2.66:4500", "claimed": "<img src=x onerror=document.title='broken'>",
                 "reason": "unknown name", "times": 4}],
    "problems": ["br_netfilter is not there"], "drops": [],
}
SERVICES = {"mode": "kernel", "list": [
    {"namespace": "default", "name": "web", "clusterIps": ["10.96.0.7", "fd00:96::7"],
     "ports": [{"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.234.1.5", "port": 8080}] * 3}]}]}
DEAD = {"running": False, "error": "selvedge-agent does not run here", "uciError": "peers[0].prefixes[2]: 300.1.2.3/8"}


class Site(SimpleHTTPRequestHandler):
    """LuCI's files, ours, an /ubus with one answer, and the place where the page tells what it shows."""

    status = {}
    asked = 0
    seen = {"title": "", "text": "", "html": ""}
    changed = threading.Condition()

    def log_message(self, *_):
        pass

    def translate_path(self, path):
        path = path.split("?")[0]
        if path == "/luci-static/resources/view/selvedge/status.js":
            return str(PACKAGE / "luci/status.js")
        for root in ("modules/luci-base/htdocs", "themes/luci-theme-bootstrap/htdocs"):
            if (LUCI / root / path[1:]).is_file():
                return str(LUCI / root / path[1:])
        return "/nowhere"

    def do_GET(self):
        if not self.path.startswith("/cgi-bin/luci/admin/status/selvedge"):
            return super().do_GET()
        return self.answer(PAGE.encode(), "text/html")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/seen":
            with Site.changed:
                Site.seen = request
                Site.changed.notify_all()
            return self.answer(b"{}", "application/json")
        many = request if isinstance(request, list) else [request]
        replies = [{"jsonrpc": "2.0", "id": one["id"], "result": self.ubus(*one.get("params", [])[1:3])} for one in many]
        return self.answer(json.dumps(replies if isinstance(request, list) else replies[0]).encode(), "application/json")

    def ubus(self, name=None, method=None):
        if name != "selvedge":
            return [0, {}]
        if method == "services":
            return [0, SERVICES]
        Site.asked += 1
        return [0, Site.status]

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def shows(*words):
    """Waits until the page shows all of these, with blanks and line ends as one."""

    def missing():
        text = " ".join(Site.seen["text"].split())
        return [w for w in words if w not in text]

    with Site.changed:
        if not Site.changed.wait_for(lambda: not missing(), timeout=60):
            raise AssertionError(f"{missing()} not in: {Site.seen['text']}")
        return Site.seen


def picture(address, name):
    if os.environ.get("SCREENSHOT"):
        subprocess.run([*browser(name), f"--screenshot={os.environ['SCREENSHOT']}/{name}.png", "--virtual-time-budget=9000",
                        "--window-size=1280,900", address], check=True, capture_output=True)


def browser(profile):
    return [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={FOLDER.name}/{profile}"]


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/cgi-bin/luci/admin/status/selvedge"
    Site.status = STATUS
    process = subprocess.Popen([*browser("test"), "--remote-debugging-port=0", address], stderr=subprocess.DEVNULL)
    try:
        seen = shows(
            "beijing.edge-1 (edge)", "generation 7 from file", "beijing.connector up 100.64.0.7:4500 → 203.0.113.10:4500",
            "ChaCha20-Poly1305 1h 1m 40s 5.0 GB 1.2 MB 5", "beijing.edge-2 connecting no answer from 203.0.113.22",
            "br_netfilter is not there", "default/web 10.96.0.7, fd00:96::7 tcp 80 3", "192.0.2.66:4500 <img", "valid for",
        )
        assert seen["title"] == "OpenWrt | Selvedge" and "&lt;img src=x" in seen["html"], "a stranger's text is text"
        picture(address, "running")

        Site.status = json.loads(json.dumps(STATUS))
        Site.status["peers"][1].update(state="up", lastError=None)
        shows("beijing.edge-2 up")

        Site.status = DEAD
        seen = shows("does not run here", "/etc/config/selvedge is not used: peers[0].prefixes[2]")
        assert "beijing" not in seen["text"], seen["text"]
        picture(address, "dead")
        Site.status = STATUS
        shows("beijing.edge-2 connecting")
    finally:
        process.terminate()
        process.wait()
        FOLDER.cleanup()
    print(f"  LuCI: tunnels, Services, problems, a stopped agent and back, in {Site.asked} polls; strangers' texts are texts")


main()
