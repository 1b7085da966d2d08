"""Packs the output of `sam build` for one architecture into a release.

A release is a zip that `sam deploy` can deploy, and the zip's SHA-256. The same build gives the
same bytes.
"""

import argparse
import hashlib
import time
import zipfile
from pathlib import Path

from samcli.yamlhelper import yaml_dump, yaml_parse

import source
from operator_tools import ops_pyz

PROGRAM = 0o100755
TEXT = 0o100644


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", required=True, choices=("arm64", "x86_64"))
    parser.add_argument("build", type=Path, help="the directory that `sam build` wrote")
    parser.add_argument("into", type=Path, help="where the zip goes")
    arguments = parser.parse_args()
    texts = source.documents()
    texts["BUILT_FROM"] = source.built_from().encode()
    texts["THIRD_PARTY_NOTICES"] = source.notices(arguments.architecture).encode()
    name = f"{source.package()['name']}-{source.package()['version']}-{arguments.architecture}"
    print(pack(arguments.build, arguments.architecture, texts, source.committed_at(), arguments.into / name))


def pack(build: Path, architecture: str, texts: dict[str, bytes], at: int, name: Path) -> Path:
    """Writes `name`.zip and `name`.zip.sha256.

    In the zip, all files are in one folder and dated `at`.
    """
    programs = {str(program.relative_to(build)): program.read_bytes() for program in build.glob("*/bootstrap")}
    if not programs:
        raise SystemExit(f"{build} has no function")
    programs["ops.pyz"] = ops_pyz()
    texts = {**texts, "template.yaml": for_one(architecture, (build / "template.yaml").read_text("utf-8")).encode()}
    name.parent.mkdir(parents=True, exist_ok=True)
    packed = name.with_name(f"{name.name}.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for files, mode in ((texts, TEXT), (programs, PROGRAM)):
            for path, content in sorted(files.items()):
                entry = zipfile.ZipInfo(f"{name.name}/{path}", time.gmtime(at)[:6])
                entry.create_system = 3  # Unix, so unzip reads the mode as a Unix mode
                entry.external_attr = mode << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    packed.with_name(f"{packed.name}.sha256").write_text(f"{digest}  {packed.name}\n")
    return packed


def for_one(architecture: str, template: str) -> str:
    """Returns the template with only the architecture of its functions allowed."""
    template = yaml_parse(template)
    template["Parameters"]["Architecture"].update(
        Default=architecture,
        AllowedValues=[architecture],
        ConstraintDescription=f"must be {architecture}, which these functions are built for.",
    )
    return yaml_dump(template)


if __name__ == "__main__":
    main()
