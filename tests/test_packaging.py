"""The wheel contains the four packages and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests import ROOT

PACKAGES = {"bench", "harness", "results", "reports"}


def test_the_wheel_holds_only_the_four_packages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    sources = {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()
    }
    expected = {name for name in sources if "__pycache__" not in name}
    assert {name for name in names if ".dist-info" not in name} == expected
