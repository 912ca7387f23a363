#!/usr/bin/env python3
"""Builds an empty package, for what the feeds of OpenWrt would bring: stub.py ipk|apk NAME FOLDER"""

import importlib.machinery
import importlib.util
import sys
import tempfile
from pathlib import Path

BUILDERS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BUILDERS))
import staged  # noqa: E402


def stub(kind, name, out):
    loader = importlib.machinery.SourceFileLoader(f"mk{kind}", str(BUILDERS / f"mk{kind}"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        for field in ("depends", "section", "url", "license", "maintainer", "conffiles", "users"):
            (stage / field).write_text("")
        for field, value in {"version": "1.0-r1", "arch": "all", "description": "stub"}.items():
            (stage / field).write_text(value)
        (stage / "root").mkdir()
        result = out / f"{name}.{kind}"
        result.write_bytes(module.build(staged.Package(name, None, stage)))
        return result


if __name__ == "__main__":
    stub(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
