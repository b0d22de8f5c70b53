"""Whether Docker can build for the processor of the Lambdas: because it runs on one, or by emulation."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from deployment.findings import Finding, not_checked, note, ok, problem
from deployment.machine.docker import DESKTOP, NO_ANSWER, Engine, program
from infrastructure.config import ARCHITECTURES

# To Docker's names of platforms.
_PLATFORMS = {"x86_64": "amd64", "arm64": "arm64"}
# Where Linux keeps the interpreters of programs for other processors:
# https://docs.kernel.org/admin-guide/binfmt-misc.html
BINFMT_DIR = Path("/proc/sys/fs/binfmt_misc")
# e_machine in a program's header: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
_MACHINES = {"x86_64": 0x3E, "arm64": 0xB7}


def platform_finding(engine: Engine | None, wanted: str) -> Finding:
    """Whether the engine can build an image for `wanted`, the LAMBDA_ARCHITECTURE."""
    name = "Platform"
    if engine is None:
        return not_checked(name, NO_ANSWER)
    if engine.architecture == wanted:
        return ok(name, f"Docker runs on {wanted}, for which the image is built")
    if not engine.architecture:
        return not_checked(name, f"`{program()} info` doesn't say for which processor it builds without emulation")
    found = f"the image is for {wanted}, but Docker runs on {engine.architecture}"
    setting = f"LAMBDA_ARCHITECTURE={engine.architecture} in .env" if engine.architecture in ARCHITECTURES else ""
    if engine.system == DESKTOP:
        return note(name, f"{found}: {DESKTOP} emulates {wanted}, which takes longer", setting)
    if not engine.is_here:
        return not_checked(name, f"{found}, and it doesn't tell whether it can emulate {wanted}")
    try:
        emulates = emulator(wanted)
    except OSError:
        return not_checked(name, f"{found}, and {BINFMT_DIR}, which lists emulators, can't be read")
    if emulates:
        return note(name, f"{found}: {emulates} emulates {wanted}, which takes longer", setting)
    install = f"{program()} run --privileged --rm tonistiigi/binfmt --install {_PLATFORMS[wanted]}"
    return problem(
        name,
        f"{found}, which can't emulate {wanted}",
        "\n".join([install, "and again after each restart of the machine", *([f"or {setting}"] if setting else [])]),
    )


def emulator(wanted: str) -> str:
    """The name of this machine's emulator of a processor, "" without one. It must also work in containers.

    Raises OSError if the list of emulators can't be read.
    """
    if not BINFMT_DIR.is_dir():
        return ""  # the kernel has no such list
    # If the list isn't mounted, this raises: the folder is empty, although the kernel may have emulators.
    if (BINFMT_DIR / "status").read_text().strip() != "enabled":
        return ""
    for path in sorted(BINFMT_DIR.iterdir()):
        if path.name not in ("status", "register"):
            with suppress(ValueError):
                if _runs(path.read_text(), wanted):
                    return path.name
    return ""


def _runs(entry: str, wanted: str) -> bool:
    """Whether an entry of binfmt_misc is for programs of a processor. Raises ValueError for an unreadable one."""
    lines = [line.partition(" ") for line in entry.splitlines()]
    values = {word.rstrip(":"): rest.strip() for word, _, rest in lines}
    # F: the kernel opened the emulator when it was registered. Otherwise it looks for it among the container's files.
    if "enabled" not in values or "F" not in values.get("flags", "") or values.get("offset") != "0":
        return False
    magic = bytes.fromhex(values.get("magic", ""))
    mask = bytes.fromhex(values["mask"]) if "mask" in values else b"\xff" * len(magic)
    # A program of 64 bits, little-endian, for any system; then its type and its machine.
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + _MACHINES[wanted].to_bytes(2, "little")
    return len(magic) >= len(header) and all(
        (byte & bits) == (of_magic & bits) for byte, of_magic, bits in zip(header, magic, mask, strict=False)
    )
