#!/bin/sh
# Leaves of unpacked packages what importing PyTorch and torchvision takes, without what python-layer has. $1: the root.
set -eu
root=$1

for folder in lib lib64; do
    [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"
done
mkdir -p "$root/tmp"

# What Debian's alternatives do: one library is both, and has its threads from OpenMP as torch has.
for folder in "$root"/usr/lib/*-linux-gnu; do
    for name in libblas.so.3 liblapack.so.3; do
        ln -sf openblas-openmp/libopenblas.so.0 "$folder/$name"
    done
done

python() {
    env -i PATH="$PATH" PYTHONHASHSEED=0 OMP_NUM_THREADS=1 chroot "$root" /usr/bin/python3 -BEs "$@"
}

python - <<'END'
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import torch._dynamo  # by the first step of an optimizer
import torchvision

PACKAGES, LIBRARIES = Path("/usr/lib/python3/dist-packages"), Path("/usr/lib")
LOADER = next(path for path in (*Path("/lib64").glob("ld-*.so.*"), *Path("/lib").glob("ld-*.so.*")))


def libraries(file: Path) -> set[Path]:
    """What the loader loads with a file."""
    said = subprocess.run([LOADER, "--list", file], capture_output=True, text=True, check=True).stdout
    if "not found" in said:
        raise SystemExit(f"{file}: {said}")
    return {Path(found).resolve() for found in re.findall(r"=> (/\S+)", said)}


files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
files = sorted(file for file in files if file.startswith(f"{PACKAGES}/"))
names = {Path(file).relative_to(PACKAGES).parts[0] for file in files}
for entry in PACKAGES.iterdir():
    if entry.name.partition("-")[0] in names:
        continue
    if entry.is_dir():
        shutil.rmtree(entry)
    else:
        entry.unlink()
next((PACKAGES / "torchvision").glob("video_reader.*.so")).unlink()  # it takes all of FFmpeg
for test in (PACKAGES / "torch/testing/_internal").rglob("*.py"):
    if str(test) not in files:
        test.unlink()
sources = [file for file in files if file.endswith(".py") and Path(file).exists()]
Path("/tmp/sources.txt").write_text("\n".join(sources))

own = [Path("/usr/bin/python3"), *Path("/usr/lib/python3.13/lib-dynload").glob("*.so")]
below = {LOADER.resolve()}.union(*(libraries(file) for file in own))
manager = PACKAGES / "torch/bin/torch_shm_manager"  # the others are tests
for file in manager.parent.iterdir():
    if file != manager:
        file.unlink()
objects = [*PACKAGES.rglob("*.so"), manager]
wanted = {file.resolve() for file in objects}.union(*(libraries(file) for file in objects))
for place in LIBRARIES.iterdir():
    if place.is_dir() and place.name not in {"python3", "python3.13"} and not place.name.endswith("-linux-gnu"):
        shutil.rmtree(place)
shared = [*LIBRARIES.glob("*.so*"), *LIBRARIES.glob("*-linux-gnu/**/*")]
for file in sorted(shared, reverse=True):
    if file.is_dir() and not file.is_symlink():
        if not any(file.iterdir()):
            file.rmdir()
    elif file.resolve() not in wanted | below:
        file.unlink()
taken = [file for file in shared if file.resolve() in below and not file.is_dir()]
Path("/tmp/below.txt").write_text("".join(f"{file}\n" for file in taken))
END

# Bytecode, which nobody can write later; the same wherever it is made.
python -m compileall -q --invalidation-mode unchecked-hash -i /tmp/sources.txt

# A layer that cannot run its own programs must not get any further.
python -Wignore - <<'END'
import torch
import torchvision

network = torch.nn.Linear(2, 2)
network(torchvision.ops.box_area(torch.ones(2, 4)).reshape(1, 2)).sum().backward()
torch.optim.SGD(network.parameters()).step()
END

while read -r file; do
    rm "$root$file"
done < "$root/tmp/below.txt"
