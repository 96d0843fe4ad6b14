"""Optional dependencies: what each extra brings, and the command that installs it for this very Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec

# the modules of each extra in pyproject.toml
EXTRAS = {
    "evaluate": ("jiwer", "pocketsphinx", "whisper_normalizer", "matplotlib"),
    "listen": ("sounddevice",),
    "serve": ("starlette", "uvicorn", "websockets", "multipart", "prometheus_client"),
    "media": ("av",),
    "ray": ("ray",),
    "remote": ("fsspec",),
    "llm": ("tokenizers", "peft", "transformers"),
    "train": ("torch", "lhotse", "scipy", "urllib3", "safetensors", "yaml", "tqdm", "tensorboard", "onnx"),
}
# packages that are not called like their module
_PACKAGES = {
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "whisper_normalizer": "whisper-normalizer",
    "yaml": "pyyaml",
}


def install_command(module: str) -> str:
    """The command line that installs a missing module, with whatever else its extra lacks.

    It works however this package was installed, because it names the Python that runs it and the packages themselves,
    which are in the public index, and not this package, which need not be in any.
    """
    for modules in EXTRAS.values():
        if module in modules:
            needed = [name for name in modules if name == module or is_missing(name)]
            return pip_command(*(_requirement(name) for name in needed))
    return pip_command(_requirement(module))


def is_missing(module: str) -> bool:
    """Is this module not installed? It is not imported."""
    try:
        return find_spec(module) is None
    except ValueError:
        # put there by somebody else, without a specification
        return sys.modules.get(module) is None


def pip_command(*requirements: str) -> str:
    """`pip install` for the Python that runs this, as it can be pasted into a shell."""
    arguments = " ".join(map(quote, requirements))
    python = quote(this_python())
    if find_spec("pip") is None:
        if shutil.which("uv"):
            return f"uv pip install --python {python} {arguments}"
        return f"{python} -m ensurepip && {python} -m pip install {arguments}"
    return f"{python} -m pip install {arguments}"


def this_python() -> str:
    """The Python that runs this: as a path from the current folder if it is below that."""
    python = sys.executable or "python3"
    try:
        relative = os.path.relpath(python)
    except ValueError:
        # another drive
        return python
    return python if relative.startswith(os.pardir) else relative


def quote(text: str) -> str:
    """For the shell of this system."""
    if os.name == "nt":
        return f'"{text}"' if re.search(r"[^\w@%+=:,./\\-]", text) else text
    return shlex.quote(text)


def _requirement(module: str) -> str:
    """`av` -> `av>=14`, as pyproject.toml demands it."""
    package = _PACKAGES.get(module, module)
    try:
        declared = metadata.requires("speech-reallm") or []
    except metadata.PackageNotFoundError:
        declared = []
    for line in declared:
        match = re.match(r"([\w.-]+)\s*([^;]*)", line)
        if match and match[1].lower().replace("_", "-") == package:
            return package + match[2].strip().replace(" ", "")
    return package
