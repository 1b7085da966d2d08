"""Packs tools/ops and the samples in events/ into ops.pyz, one file that Python runs.

The same source gives the same bytes, in a clone and in a release.
"""

import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "tools" / "ops"
EVENTS = ROOT / "events"
PROGRAM = "from ops.__main__ import main\n\nmain()\n"
INTERPRETER = b"#!/usr/bin/env python3\n"
OLDEST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store


def ops_pyz() -> bytes:
    """Returns the content of ops.pyz."""
    files = {"__main__.py": PROGRAM.encode()}
    files |= {f"ops/{module.name}": module.read_bytes() for module in OPS.glob("*.py")}
    files |= {f"ops/events/{sample.name}": sample.read_bytes() for sample in EVENTS.glob("*.json")}
    packed = io.BytesIO()
    packed.write(INTERPRETER)
    # Uncompressed, because compressed bytes may differ between versions of zlib.
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path, OLDEST)
            entry.create_system = 3  # Unix, so unzip reads the mode as a Unix mode
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return packed.getvalue()


if __name__ == "__main__":
    into = Path(sys.argv[1])
    try:
        into.write_bytes(ops_pyz())
        into.chmod(0o755)
    except OSError as error:
        sys.exit(f"{into} cannot be written: {error.strerror}")
