"""Packs what `sam build` made for one architecture: a zip from which `sam deploy` deploys, and its SHA-256 beside it.

The same build gives the same bytes.
"""

import argparse
import hashlib
import time
import zipfile
from pathlib import Path

from samcli.yamlhelper import yaml_dump, yaml_parse

import source

PROGRAM = 0o100755
TEXT = 0o100644
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", required=True, choices=("arm64", "x86_64"))
    parser.add_argument("build", type=Path, help="the directory that `sam build` wrote")
    parser.add_argument("into", type=Path, help="where the zip goes")
    arguments = parser.parse_args()
    texts = {name: (source.ROOT / name).read_bytes() for name in LICENCES}
    texts["BUILT_FROM"] = source.built_from().encode()
    texts["THIRD_PARTY_NOTICES"] = source.notices(arguments.architecture).encode()
    name = f"{source.package()['name']}-{source.package()['version']}-{arguments.architecture}"
    print(pack(arguments.build, arguments.architecture, texts, source.committed_at(), arguments.into / name))


def pack(build, architecture, texts, at, name):
    """Writes `name`.zip, in which everything is in one folder and as old as `at`, and `name`.zip.sha256."""
    texts = {**texts, "template.yaml": for_one(architecture, (build / "template.yaml").read_text("utf-8")).encode()}
    programs = {str(program.relative_to(build)): program.read_bytes() for program in build.glob("*/bootstrap")}
    if not programs:
        raise SystemExit(f"{build} has no function in it")
    name.parent.mkdir(parents=True, exist_ok=True)
    packed = name.with_name(f"{name.name}.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, mode in [*((path, TEXT) for path in sorted(texts)), *((path, PROGRAM) for path in sorted(programs))]:
            entry = zipfile.ZipInfo(f"{name.name}/{path}", time.gmtime(at)[:6])
            entry.create_system = 3  # Unix: what the mode is read as
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, texts.get(path) or programs[path])
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    packed.with_name(f"{packed.name}.sha256").write_text(f"{digest}  {packed.name}\n")
    return packed


def for_one(architecture, template):
    """The template, which now refuses the architecture that its functions are not built for."""
    template = yaml_parse(template)
    template["Parameters"]["Architecture"].update(
        Default=architecture,
        AllowedValues=[architecture],
        ConstraintDescription=f"must be {architecture}, which these functions are built for.",
    )
    return yaml_dump(template)


if __name__ == "__main__":
    main()
