"""Build the wheel and the source distribution, try both in clean environments, write checksums.

    python scripts/release.py                    # every Python from 3.10 to 3.13 that this machine has
    python scripts/release.py --python python3.12 --out dist

For each Python a new environment is made in a temporary folder, the wheel is installed with its runtime dependencies
alone, and the demo is transcribed there. The source distribution is tried with the first of them. OUT/SHA256SUMS is
what `sha256sum -c` reads; it is written last, so that a folder with it is a whole release.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples/demo.opus"
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
# words of the demo that every build must bring out
EXPECTED = ("good morning", "speaking", "machine")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="dist", help="where the files go (default: dist)")
    parser.add_argument(
        "--python",
        action="append",
        metavar="PROGRAM",
        help="try the wheel with this Python; may be repeated (default: those of this machine)",
    )
    args = parser.parse_args()
    pythons = args.python or installed_pythons()
    if not pythons:
        print(f"no Python of {', '.join(VERSIONS)} was found; name one: --python", file=sys.stderr)
        return 2
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    sums = out / "SHA256SUMS"
    sums.unlink(missing_ok=True)
    wheel, source = build(out)
    for number, python in enumerate(pythons):
        try_distribution(wheel, python)
        if number == 0:
            try_distribution(source, python)
    sums.write_text("".join(f"{sha256(file)}  {file.name}\n" for file in (wheel, source)), encoding="ascii")
    print(f"{sums}:\n{sums.read_text(encoding='ascii')}", end="")
    return 0


def installed_pythons() -> list[str]:
    """Programs of the supported versions: those on PATH, those of pyenv, and the one that runs this."""
    found = {}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}")]
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            candidates.append(sys.executable)
        for program in candidates:
            # pyenv's shims are on PATH for versions that are not selected, and fail
            if (
                program
                and subprocess.run([program, "-c", "import venv"], capture_output=True).returncode == 0
            ):
                found[version] = program
                break
    return list(found.values())


def build(out: Path) -> tuple[Path, Path]:
    """Build into `out`; returns the wheel and the source distribution."""
    before = set(out.iterdir())
    print("building the source distribution and, from it, the wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    made = sorted(set(out.iterdir()) - before, key=lambda path: path.stat().st_mtime) or sorted(out.iterdir())
    wheel = next(path for path in reversed(made) if path.suffix == ".whl")
    source = next(path for path in reversed(made) if path.name.endswith(".tar.gz"))
    for file in (wheel, source):
        print(f"  {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return wheel, source


def try_distribution(file: Path, python: str) -> None:
    """Install `file` into a new environment of `python` and transcribe the demo there. Raises SystemExit."""
    with tempfile.TemporaryDirectory(prefix="reallm-release-") as folder:
        environment = Path(folder) / "venv"
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
        programs = environment / ("Scripts" if os.name == "nt" else "bin")
        pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", str(file.resolve())], check=True)
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        # from another folder, so that nothing is taken from the repository
        done = subprocess.run(
            [str(programs / "reallm"), "transcribe", str(DEMO)],
            cwd=folder, env=clean, capture_output=True, text=True,
        )  # fmt: skip
        missing = [words for words in EXPECTED if words not in done.stdout.lower()]
        if done.returncode or missing:
            raise SystemExit(
                f"{file.name} with {python}: exit code {done.returncode}, "
                f"{'no ' + ', '.join(missing) if missing else ''}\n{done.stdout}{done.stderr}"
            )
        version = subprocess.run(
            [python, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        print(f"  {file.name}: installs and transcribes the demo with {version}")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
