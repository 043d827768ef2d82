"""Make the files of an artefact from their declared inputs, and say what those inputs are."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from testbed import files
from testbed.apt import host_apt_options, host_apt_sources
from testbed.artifacts import bytecode, compilers, download, layers, python_packages
from testbed.artifacts.declaration import (
    ARCHITECTURES,
    CBuild,
    Declaration,
    GoBuild,
    Image,
    ImageBuild,
    MavenBuild,
    PythonBuild,
    RootfsBuild,
    archive_name,
    image_tag,
    python_archive,
)
from testbed.artifacts.progress import Reporter
from testbed.artifacts.store import Store
from testbed.errors import CHECK_FAILED, DeepError
from testbed.paths import repo_root
from testbed.run import Children

# Raise it when the builders change what they make from the same inputs.
BUILDER = 1
UPSTREAM, BUILD = "upstream", "build"
GO_LDFLAGS = ("-s", "-w", "-buildid=")
# No timestamp, path or build identifier of this host may reach the output.
C_FLAGS = ("-std=gnu11", "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none", "-fno-ident")
SOURCE_DATE_EPOCH = "0"
MAVEN_GET = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get"


@dataclass(frozen=True)
class Context:
    """Everything a builder needs besides the declaration."""

    store: Store
    declarations: Mapping[str, Declaration]
    reporter: Reporter
    root: Path
    children: Children = field(default_factory=Children)


def context(
    store: Store, declarations: Mapping[str, Declaration], reporter: Reporter, children: Children | None = None
) -> Context:
    """A context for this checkout; whoever gives ``children`` can end the compilers."""
    return Context(store, declarations, reporter, repo_root(), children or Children())


def source_of(declaration: Declaration, preferred: str) -> str:
    """``preferred`` (upstream or build) where it is declared, else the other one."""
    other = BUILD if preferred == UPSTREAM else UPSTREAM
    for name in (preferred, other):
        if getattr(declaration.sources, name) is not None:
            return name
    raise DeepError(
        f"artifacts/{declaration.name}.yml: nothing to put into the store",
        found="source package only",
        needed="sources.upstream or sources.build",
        next_step="install it from packages",
    )


def disk_needed(declaration: Declaration, source: str) -> int:
    """Free bytes a build asks for (0 where nothing is declared)."""
    build = declaration.sources.build
    return int(build.disk) if source == BUILD and build is not None else 0


# Fingerprints: equal inputs make equal files, so equal fingerprints need no build.


def fingerprint(declaration: Declaration, source: str, ctx: Context) -> str:
    """SHA-256 over everything that decides the content of the files."""
    inputs: dict[str, Any] = {
        "builder": BUILDER,
        "version": declaration.version,
        "machine": platform.machine(),
        "source": source,
    }
    inputs["files"] = sorted(file.name for file in declaration.files)
    if source == UPSTREAM:
        inputs["upstream"] = (
            declaration.sources.upstream.model_dump(exclude={"note", "exercised"})
            if declaration.sources.upstream
            else None
        )
    else:
        build = declaration.sources.build
        inputs["build"] = build.model_dump(exclude={"disk"}) if build else None
        inputs["inputs"] = _build_inputs(declaration, ctx)
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _build_inputs(declaration: Declaration, ctx: Context) -> dict[str, Any]:
    build = declaration.sources.build
    match build:
        case GoBuild():
            inputs: dict[str, Any] = {"go": compilers.go_version(), "module": _tree_hash(_module_dir(build, ctx))}
            return inputs | ({"gcc": compilers.gcc_version()} if build.cgo else {})
        case CBuild():
            return {"gcc": compilers.gcc_version(), "flags": C_FLAGS, "tree": _tree_hash(ctx.root / build.directory)}
        case RootfsBuild():
            return {"customise": files.sha256_of(ctx.root / build.customise), **_packing()}
        case PythonBuild():
            compiled = (
                {"bytecode": [*bytecode.INPUTS, _stored(build.bytecode.layer, ctx).name]} if build.bytecode else {}
            )
            return {**python_packages.inputs(build, ctx.root), **compiled, **_packing()}
        case MavenBuild():
            return {}
        case ImageBuild():
            return {"images": _image_inputs(build, ctx), **_packing()}
    raise DeepError(f"artifacts/{declaration.name}.yml: sources.build is not declared", next_step="declare it")


def _packing() -> dict[str, Any]:
    """What decides the bytes of a compressed layer besides its content."""
    return {"zlib": zlib.ZLIB_RUNTIME_VERSION, "level": layers.GZIP_LEVEL}


def _image_inputs(build: ImageBuild, ctx: Context) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for name, image in build.images.items():
        references = [reference for layer in image.layers for reference in layer.references()]
        hashes = {reference: _stored(reference, ctx).name for reference in references}
        inputs[name] = {"tag": image_tag(image, dict(ctx.declarations)), "content": hashes}
    return inputs


def _stored(reference: str, ctx: Context) -> Path:
    artifact, _, file = reference.partition("/")
    return ctx.store.file(artifact, file)


def _tree_hash(folder: Path) -> str:
    if not folder.is_dir():
        raise DeepError(
            f"{folder}: no such folder of sources",
            needed="the folder named by the declaration",
            next_step="correct the declaration",
        )
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{files.sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _module_dir(build: GoBuild, ctx: Context) -> Path:
    return ctx.root / "artifacts" / "go" / build.module


# Builders: each returns {file name: path below ``work``}.


def make(declaration: Declaration, source: str, ctx: Context, work: Path) -> dict[str, Path]:
    """Make every file of ``declaration`` in ``work``."""
    if source == UPSTREAM:
        ctx.reporter.step(declaration.name, "downloading")
        return download.fetch_upstream(
            declaration,
            ctx.store.root / "downloads",
            work,
            lambda done, total: ctx.reporter.amount(declaration.name, done, total),
        )
    return _build(declaration, ctx, work)


def _build(declaration: Declaration, ctx: Context, work: Path) -> dict[str, Path]:
    build = declaration.sources.build
    match build:
        case GoBuild():
            return _make_go(declaration, build, ctx, work)
        case CBuild():
            return _make_c(declaration, build, ctx, work)
        case RootfsBuild():
            return _make_rootfs(declaration, build, ctx, work)
        case PythonBuild():
            return _make_python(declaration, build, ctx, work)
        case MavenBuild():
            return _make_maven(declaration, build, ctx, work)
        case ImageBuild():
            return _make_images(declaration, build, ctx, work)
    raise DeepError(f"artifacts/{declaration.name}.yml: sources.build is not declared", next_step="declare it")


def _go_environment(build: GoBuild) -> dict[str, str]:
    """Settings that decide the result; proxies and caches stay those of the machine."""
    return {
        "CGO_ENABLED": "1" if build.cgo else "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOOS": "linux",
        "GOARCH": _architecture(),
        "GOAMD64": "v1",
        "GOEXPERIMENT": "",
        "CC": "gcc",
        "CGO_CFLAGS": "-O2",
        "CGO_LDFLAGS": "-Wl,--build-id=none",
    }


def _scratch(work: Path) -> dict[str, str]:
    """Where a compiler has its temporary files, so that those of a killed one go with the folder of its build."""
    return {"TMPDIR": str(work)}


def prepare_go(declaration: Declaration, ctx: Context) -> int:
    """Download the modules that the commands are compiled from; returns the number of packages."""
    build = declaration.sources.build
    if not isinstance(build, GoBuild):
        return 0
    names: list[str] = []
    compilers.compile_with(
        [compilers.go(), "list", "-deps", "-f", "{{.ImportPath}}", *build.packages.values()],
        log=ctx.store.root / "logs" / f"{declaration.name}.modules.log",
        children=ctx.children,
        env=_go_environment(build),
        cwd=_module_dir(build, ctx),
        on_line=names.append,
    )
    return len([name for name in names if " " not in name])


def _make_go(declaration: Declaration, build: GoBuild, ctx: Context, work: Path) -> dict[str, Path]:
    total = prepare_go(declaration, ctx)
    ctx.reporter.step(declaration.name, f"compiling (log: {ctx.store.log_path(declaration.name)})")
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        if " " not in line:
            compiled += 1
            ctx.reporter.amount(declaration.name, min(compiled, total), total)

    flags = " ".join([*GO_LDFLAGS, *(declaration.expand(flag) for flag in build.ldflags)])
    compilers.compile_with(
        [
            compilers.go(),
            "build",
            "-v",
            "-trimpath",
            "-buildvcs=false",
            f"-ldflags={flags}",
            "-o",
            f"{work}/",
            *build.packages.values(),
        ],
        log=ctx.store.log_path(declaration.name),
        children=ctx.children,
        env={**_go_environment(build), **_scratch(work)},
        cwd=_module_dir(build, ctx),
        on_line=count,
    )
    return {file: work / build.output_name(file) for file in build.packages}


def _make_c(declaration: Declaration, build: CBuild, ctx: Context, work: Path) -> dict[str, Path]:
    ctx.reporter.step(declaration.name, "compiling")
    for name, output in build.outputs.items():
        compilers.compile_with(
            [compilers.gcc(), *C_FLAGS, *build.flags, *output.flags, "-o", work / name, *output.sources],
            log=ctx.store.log_path(declaration.name),
            children=ctx.children,
            env={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "LC_ALL": "C", **_scratch(work)},
            cwd=ctx.root / build.directory,
        )
    return {name: work / name for name in build.outputs}


def _make_rootfs(declaration: Declaration, build: RootfsBuild, ctx: Context, work: Path) -> dict[str, Path]:
    if shutil.which("mmdebstrap") is None:
        raise DeepError(
            "mmdebstrap is not installed",
            needed="mmdebstrap",
            next_step="install mmdebstrap (Debian and Ubuntu package it)",
        )
    ctx.reporter.step(declaration.name, "unpacking packages of Debian")
    root, listing = work / "root", work / build.packages_list
    options = [f"--aptopt={line}" for line in host_apt_options()]
    compilers.compile_with(
        [
            "mmdebstrap",
            "--variant=extract",
            f"--include={','.join(build.packages)}",
            *options,
            '--aptopt=APT::Install-Recommends "false"',
            # Hooks run in this order; the variant has no later one. First the versions that came in: the list of
            # materials of every image built on this layer.
            f'--extract-hook=cd "$1/var/cache/apt/archives" && LC_ALL=C ls | grep "[.]deb$" > {quote(str(listing))}',
            f"--extract-hook={ctx.root / build.customise}",
            build.suite,
            root,
            *host_apt_sources(build.suite),
        ],
        log=ctx.store.log_path(declaration.name),
        children=ctx.children,
        env={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
    )
    ctx.reporter.step(declaration.name, "packing the layer")
    layers.pack_tree(root, build.exclude, work / build.output)
    return {build.output: work / build.output, build.packages_list: listing}


def _make_python(declaration: Declaration, build: PythonBuild, ctx: Context, work: Path) -> dict[str, Path]:
    made = {}
    for version in build.pythons:
        ctx.reporter.step(declaration.name, f"fetching packages for Python {version}")
        root = work / f"python{version}"
        compilers.compile_with(
            python_packages.command(build, ctx.root, version, root),
            log=ctx.store.log_path(declaration.name),
            children=ctx.children,
            env=_scratch(work),
            cwd=ctx.root,
        )
        python_packages.complete(declaration.name, build, ctx.root, root)
        if build.bytecode and build.folder:
            ctx.reporter.step(declaration.name, "compiling what is imported")
            layer, log = _stored(build.bytecode.layer, ctx), ctx.store.log_path(declaration.name)
            bytecode.add(build.bytecode, layer, root / build.folder, build.folder, log, ctx.children)
        made[python_archive(version)] = work / python_archive(version)
        layers.pack_tree(root, python_packages.left_out(build), made[python_archive(version)])
    return made


def _make_maven(declaration: Declaration, build: MavenBuild, ctx: Context, work: Path) -> dict[str, Path]:
    ctx.reporter.step(declaration.name, "fetching from the Maven repository")
    artifact = declaration.expand(build.artifact)
    repository = work / "repository"
    compilers.compile_with(
        [
            compilers.mvn(),
            "--batch-mode",
            "--no-transfer-progress",
            # Of this build alone: the user's own would keep a second copy.
            f"-Dmaven.repo.local={repository}",
            f"-Dartifact={artifact}",
            "-Dtransitive=false",
            MAVEN_GET,
        ],
        log=ctx.store.log_path(declaration.name),
        children=ctx.children,
        cwd=work,
    )
    group, name, version, packaging = artifact.split(":")
    found = repository.joinpath(*group.split("."), name, version, f"{name}-{version}.{packaging}")
    ((file, wanted),) = build.sha256.items()
    if (digest := files.sha256_of(found)) != wanted:
        raise DeepError(
            f"artifacts/{declaration.name}.yml: the Maven repository has another file",
            found=f"sha256 {digest} of {artifact}",
            needed=f"sha256 {wanted}",
            next_step="ask who runs the repository that Maven uses",
            exit_code=CHECK_FAILED,
        )
    return {file: found}


def _make_images(declaration: Declaration, build: ImageBuild, ctx: Context, work: Path) -> dict[str, Path]:
    ctx.reporter.step(declaration.name, "packing images")
    ready = {
        reference: layers.inspect_layer(_stored(reference, ctx))
        for reference in sorted(
            {layer.layer for image in build.images.values() for layer in image.layers if layer.layer}
        )
    }
    # Compression leaves the interpreter's lock, so that images are packed on every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_make_image, name, image, ctx, work, ready) for name, image in build.images.items()]
        for number, job in enumerate(jobs):
            job.result()
            ctx.reporter.amount(declaration.name, number + 1, len(jobs))
    return {archive_name(name): work / archive_name(name) for name in build.images}


def _make_image(name: str, image: Image, ctx: Context, work: Path, ready: dict[str, layers.PackedLayer]) -> None:
    packed = []
    for index, layer in enumerate(image.layers):
        if layer.layer is not None:
            packed.append(ready[layer.layer])
            continue
        contents = {destination: _stored(reference, ctx) for destination, reference in layer.files.items()}
        packed.append(layers.pack_files(contents, work / f"{name}.{index}"))
    config = layers.image_config(
        packed,
        _architecture(),
        entrypoint=image.entrypoint,
        command=image.command,
        environment=image.environment,
        user=image.user,
    )
    reference = f"deephdc/{name}:{image_tag(image, dict(ctx.declarations))}"
    layers.write_archive(work / archive_name(name), reference, config, packed)


def _architecture() -> str:
    """The host's architecture as Go and container images name it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def build_caches(declaration: Declaration) -> list[Path]:
    """Folders outside the store that a build fills."""
    return compilers.go_caches() if isinstance(declaration.sources.build, GoBuild) else []


def on_other_disks(paths: list[Path], reference: Path) -> list[Path]:
    """Those of ``paths`` whose file system is another one than that of ``reference``."""

    def device(path: Path) -> int:
        while not path.exists():
            path = path.parent
        return path.stat().st_dev

    return [path for path in paths if device(path) != device(reference)]
